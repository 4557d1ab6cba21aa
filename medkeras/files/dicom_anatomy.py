"""What a picture shows: body part, side and view, from words and codes to closed lists.

Machines and users write "KNEE", "BILATERAL KNEE" or "Knee AP left" into one and the same tag, and
newer files say it by codes. What counts, in this order:

* body part: BodyPartExamined as a whole ("LOWER LEG"); the only known word in it; the code in
  AnatomicRegionSequence;
* view: the only known word in ViewPosition; the code in ViewCodeSequence; the only known word in
  BodyPartExamined;
* side: ImageLaterality, FrameLaterality, Laterality, a word in BodyPartExamined. The first
  counts; but where one says right and another left, none does.
"""

import re

# PS3.16 annex L, as far as these modalities show them; spaces and signs removed.
BODY_PARTS = {
    *("ABDOMEN", "ANKLE", "ARM", "BACK", "BRAIN", "BREAST", "CALCANEUS", "CHEST", "CLAVICLE"),
    *("COCCYX", "CSPINE", "ELBOW", "EXTREMITY", "FACE", "FEMUR", "FINGER", "FOOT", "FOREARM"),
    *("HAND", "HEAD", "HEART", "HIP", "HUMERUS", "JAW", "KNEE", "LEG", "LOWERLEG", "LSPINE"),
    *("LUNG", "MANDIBLE", "MAXILLA", "NECK", "NOSE", "ORBIT", "PATELLA", "PELVIS", "PROSTATE"),
    *("RADIUS", "RADIUSULNA", "RIB", "SACRUM", "SCAPULA", "SHOULDER", "SKULL", "SPINE", "SSPINE"),
    *("STERNUM", "THIGH", "THUMB", "TIBIA", "TIBIAFIBULA", "TLSPINE", "TMJ", "TOE", "TSPINE"),
    *("ULNA", "UPPERARM", "WHOLEBODY", "WRIST"),
}
SAME_PART = {"KNEES": "KNEE", "THORAX": "CHEST", "RIBS": "RIB"}
VIEWS = {
    *("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LAT", "LATERAL", "OBL", "OBLIQUE"),
    *("AXIAL", "SKYLINE", "CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "AT", "SIO"),
}
# No single letters: "L SPINE" names no side.
SIDES = {
    **{"RIGHT": "R", "RT": "R", "LEFT": "L", "LT": "L"},
    **{"BOTH": "B", "BILATERAL": "B", "BILAT": "B"},
}
# SNOMED CT and the older SNOMED RT, of the parts and views that readers ask for.
REGION_CODES = {
    **{"72696002": "KNEE", "T-D9200": "KNEE", "64234005": "PATELLA", "T-12730": "PATELLA"},
    **{"61685007": "LEG", "T-D9000": "LEG", "816094009": "CHEST", "51185008": "CHEST"},
    **{"T-D3000": "CHEST", "85562004": "HAND", "T-D8700": "HAND", "56459004": "FOOT"},
    **{"T-D9700": "FOOT", "29836001": "HIP", "T-D2500": "HIP", "816092008": "PELVIS"},
    **{"12921003": "PELVIS", "T-D6000": "PELVIS", "66019005": "EXTREMITY"},
    "T-D0300": "EXTREMITY",
}
VIEW_CODES = {
    **{"399348003": "AP", "R-10206": "AP", "272479007": "PA", "R-40888": "PA", "R-10214": "PA"},
    **{"399067008": "LATERAL", "R-102CD": "LATERAL", "399173006": "LL", "R-10236": "LL"},
    **{"399198007": "RL", "R-10232": "RL", "399260004": "ML", "R-10224": "ML"},
    **{"399352003": "LM", "R-10228": "LM", "399061009": "AXIAL", "R-10241": "AXIAL"},
    **{"399182000": "OBLIQUE", "R-102C1": "OBLIQUE"},
}


def body_part(text: str, codes: list[str]) -> str:
    """Chooses the body part.

    Args:
        text: BodyPartExamined.
        codes: of AnatomicRegionSequence.

    Returns:
        One of `BODY_PARTS`, or "".
    """
    whole = "".join(_words(text))
    found = whole if whole in BODY_PARTS else ""
    words = [SAME_PART.get(word, word) for word in _words(text)]
    return found or _only(words, BODY_PARTS) or _coded(codes, REGION_CODES)


def view(text: str, codes: list[str], part: str) -> str:
    """Chooses the view.

    Args:
        text: ViewPosition.
        codes: of ViewCodeSequence.
        part: BodyPartExamined.

    Returns:
        One of `VIEWS`, or "".
    """
    return _only(_words(text), VIEWS) or _coded(codes, VIEW_CODES) or _only(_words(part), VIEWS)


def side(named: list[str], part: str, notes: list[str]) -> str:
    """Chooses the side of the patient.

    Args:
        named: by the tags for it, the one that counts most first.
        part: BodyPartExamined.
        notes: list that grows where right and left are named.

    Returns:
        "R", "L", "B" for both, or "".
    """
    word = SIDES.get(_only(_words(part), SIDES), "")
    sides = [found for found in (*named, word) if found in ("R", "L", "B")]
    if {"R", "L"} <= set(sides):
        notes.append("one tag says right, another left: no side")
        return ""
    return sides[0] if sides else ""


def _words(text):
    return re.findall("[A-Z]+", text.upper())


def _only(words, allowed):
    found = {word for word in words if word in allowed}
    return found.pop() if len(found) == 1 else ""


def _coded(codes, meanings):
    return next((meanings[code] for code in codes if code in meanings), "")
