"""What belongs together when pairs do."""


def joined(pairs):
    """Joins members that are linked by pairs, directly or through others.

    Args:
        pairs: iterable of (member, member).

    Returns:
        Function of a member that names its set, by the first member in order; one without a
        pair is a set of its own.
    """
    parent = {}

    def root(member):
        while (above := parent.get(member, member)) != member:
            parent[member] = parent.get(above, above)
            member = above
        return member

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        if low != high:
            parent[high] = low
    return root
