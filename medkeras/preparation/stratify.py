"""Spreads groups of patients over sides so that every label is spread too.

A stratification of many labels at once, after the idea of Sechidis, Tsoumakas and Vlahavas, "On
the Stratification of Multi-Label Data", ECML PKDD 2011: the rarest label decides first.
"""

from collections import Counter


def spread(tags, shares, keys):
    """Spreads groups over sides, label by label, the rarest label first.

    Within a label the groups are taken in the order of their hashes, and each side in turn takes
    what it still misses: a few further groups move few of the others. A label that enough groups
    have goes round every side.

    Args:
        tags: pictures by (group, tag).
        shares: side -> share of the pictures; the last side takes the rest.
        keys: hash of each group, which orders them.

    Returns:
        dict of side -> list of groups.
    """
    brings, holders = {}, {}
    for (group, tag), pictures in tags.items():
        brings.setdefault(group, {})[tag] = pictures
        holders.setdefault(tag, []).append(group)
    sides, placed = {side: [] for side in shares}, set()
    has = {tag: dict.fromkeys(shares, 0) for tag in holders}
    order = list(shares)
    for tag in sorted(holders, key=lambda tag: (len(holders[tag]), tag)):
        goal = sum(brings[group][tag] for group in holders[tag])
        free = sorted(
            (group for group in holders[tag] if group not in placed),
            key=keys.get,
            reverse=True,
        )
        allowed = taken = 0
        for number, side in enumerate(order):
            lacking = sum(not has[tag][later] for later in order[number + 1 :])
            allowed += max(0, shares[side] * goal - has[tag][side])
            # A label goes round first: one group stays for each side that still lacks it.
            while free and (
                side == order[-1]
                or len(free) > lacking
                and (has[tag][side] == 0 or taken + brings[free[-1]][tag] / 2 <= allowed)
            ):
                group = free.pop()
                taken += brings[group][tag]
                sides[side].append(group)
                placed.add(group)
                for other, pictures in brings[group].items():
                    has[other][side] += pictures
    return _gone_round(sides, brings, holders, keys)


def _gone_round(sides, brings, holders, keys):
    """Moves a group to each side that lacks a label because rarer ones decided before it."""
    place = {group: side for side, groups in sides.items() for group in groups}
    number = Counter((tag, place[group]) for group in place for tag in brings[group])
    for tag in sorted(holders, key=lambda tag: (len(holders[tag]), tag)):
        for side in sides:
            if number[tag, side]:
                continue
            spare = [
                group
                for group in holders[tag]
                if all(number[other, place[group]] > 1 for other in brings[group])
            ]
            if not spare:
                continue
            moved = min(spare, key=keys.get)
            number.subtract((other, place[moved]) for other in brings[moved])
            number.update((other, side) for other in brings[moved])
            sides[place[moved]].remove(moved)
            sides[side].append(moved)
            place[moved] = side
    return sides
