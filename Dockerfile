# medkeras on a CPU, to train and report without a Python of your own:
#
#   docker build -t medkeras .
#   docker run --rm -v "$PWD/runs:/app/saved_models" medkeras experiments/bone_xception.py --sample
#
# Mount data read-only:  -v /your/xrays:/data:ro  ...  --data /data
# The base is pinned by version, not by digest: a rebuild takes Debian's security fixes in.
FROM python:3.11.13-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app \
    TF_CPP_MIN_LOG_LEVEL=2 \
    MPLCONFIGDIR=/tmp/matplotlib

RUN useradd --create-home --uid 1000 reader \
    && install --directory --owner reader /app /app/saved_models
WORKDIR /app

# Before the code, so that a change of code does not install anew.
COPY requirements.txt ./
RUN pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.txt

COPY pyproject.toml LICENSE ./
COPY medkeras medkeras
COPY experiments experiments

USER reader
VOLUME /app/saved_models
ENTRYPOINT ["python"]
CMD ["experiments/bone_xception.py", "--help"]
