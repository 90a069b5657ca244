"""Text of a terminal on standard input, an SVG picture of it on standard output; colours and bold are kept.

The pictures in the README were made so from what tmux shows of a real sweep: the progress view while `make demo` ran,
and `muster watch` while tests/dashboard/record.sh did:
    tmux capture-pane -p -e | python3 tests/terminal_picture.py > coordinator/assets/progress.svg

Frames and dots are drawn as lines and circles: few fonts have all of them, and fewer at the width of letters.
"""

import html
import re
import sys

COLUMN, ROW, MARGIN = 7.8, 18, 14
TEXT, PAPER = "#d8dee6", "#14161a"
# The sixteen colours of terminals by number, as many of them draw them.
SIXTEEN = ["#2b303b", "#e06c75", "#63c381", "#e5c07b", "#6aa9f0", "#c678dd", "#56c2cc", "#c8cdd5",
           "#7a8290", "#ff7b85", "#7fdc9b", "#f0d08a", "#8cc0ff", "#dd9bf0", "#7fdbe4", "#ffffff"]
# Where the arms of a frame's character end: left, right, up, down; 2 is heavy.
ARMS = {"─": (1, 1, 0, 0), "│": (0, 0, 1, 1), "┌": (0, 1, 0, 1), "┐": (1, 0, 0, 1), "└": (0, 1, 1, 0),
        "┘": (1, 0, 1, 0), "├": (0, 1, 1, 1), "┤": (1, 0, 1, 1), "┬": (1, 1, 0, 1), "┴": (1, 1, 1, 0),
        "┼": (1, 1, 1, 1), "━": (2, 2, 0, 0), "┃": (0, 0, 2, 2), "┏": (0, 2, 0, 2), "┓": (2, 0, 0, 2),
        "┗": (0, 2, 2, 0), "┛": (2, 0, 2, 0)}
# Column and row of the bits of a Braille character.
DOTS = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]


def indexed(number):
    """A colour of the 256."""
    if number < 16:
        return SIXTEEN[number]
    if number >= 232:
        return "#" + f"{8 + 10 * (number - 232):02x}" * 3
    levels = [0, 95, 135, 175, 215, 255]
    red, green, blue = (number - 16) // 36, (number - 16) // 6 % 6, (number - 16) % 6
    return f"#{levels[red]:02x}{levels[green]:02x}{levels[blue]:02x}"


class Style:
    """What escape sequences have said up to now."""

    def __init__(self):
        self.front, self.back, self.bold, self.dim, self.reversed = None, None, False, False, False

    def read(self, codes):
        codes = [int(code or 0) for code in re.split("[;:]", codes)]
        while codes:
            code = codes.pop(0)
            if code == 0:
                self.__init__()
            elif code in (1, 2, 7):
                setattr(self, {1: "bold", 2: "dim", 7: "reversed"}[code], True)
            elif code == 22:
                self.bold = self.dim = False
            elif code == 27:
                self.reversed = False
            elif code in (38, 48):
                kind = codes.pop(0)
                colour = indexed(codes.pop(0)) if kind == 5 else "#%02x%02x%02x" % tuple(codes.pop(0) for _ in range(3))
                setattr(self, "front" if code == 38 else "back", colour)
            elif code in (39, 49):
                setattr(self, "front" if code == 39 else "back", None)
            else:
                for first, bright, what in ((30, 0, "front"), (40, 0, "back"), (90, 8, "front"), (100, 8, "back")):
                    if first <= code < first + 8:
                        setattr(self, what, SIXTEEN[code - first + bright])

    def now(self):
        front, back = self.front or TEXT, self.back
        if self.reversed:
            front, back = back or PAPER, front
        return front, back, self.bold, self.dim


def cells(line, style):
    """Characters of a line with their styles, which go on from line to line."""
    for part in re.findall(r"\x1b\[([0-9;:]*)m|\x1b[^m]*m|(\x0e|\x0f)|([^\x1b])", line):
        if part[2]:
            yield part[2], style.now()
        elif not part[1]:
            style.read(part[0])


def runs(row, key):
    """Neighbours of a row that are alike: column, key, text."""
    found = []
    for column, cell in enumerate(row):
        one = key(cell)
        if one is None:
            continue
        if found and found[-1][1] == one and found[-1][0] + len(found[-1][2]) == column:
            found[-1][2] += cell[0]
        else:
            found.append([column, one, cell[0]])
    return found


def is_letter(character):
    return character not in ARMS and not "\u2800" <= character <= "\u28ff" and character not in "█"


def texts(index, row):
    """What is written, runs of one style each, at the width that a terminal gives them."""
    y = MARGIN + ROW * index + 13
    own = lambda cell: (cell[1][0], *cell[1][2:]) if is_letter(cell[0]) else None
    for column, (front, bold, dim), text in runs(row, own):
        more = f' fill="{front}"' if front != TEXT else ""
        more += ' font-weight="bold"' * bold + ' opacity=".6"' * dim
        # Several spaces are none to some viewers, so columns are apart.
        for part in re.finditer(r"\S+(?: \S+)*", text):
            x, width = MARGIN + COLUMN * (column + part.start()), COLUMN * len(part[0])
            said = html.escape(part[0], quote=False)
            yield f'<text x="{x:.1f}" y="{y}"{more} textLength="{width:.1f}">{said}</text>'


def backs(index, row):
    for column, back, text in runs(row, lambda cell: cell[1][0] if cell[0] == "█" else cell[1][1]):
        x, y = MARGIN + COLUMN * column, MARGIN + ROW * index
        yield f'<path fill="{back}" d="M{x:.1f} {y}h{COLUMN * len(text):.1f}v{ROW}h-{COLUMN * len(text):.1f}z"/>'


def drawn(rows):
    """Frames and dots, all of one colour in one path."""
    lines, dots = {}, {}
    for index, row in enumerate(rows):
        top = MARGIN + ROW * index
        for column, kind, text in runs(row, lambda cell: (cell[0], cell[1][0]) if cell[0] in "─━" else None):
            weight, x = 2 if kind[0] == "━" else 1, MARGIN + COLUMN * column
            lines.setdefault((kind[1], weight), []).append(f"M{x:.1f} {top + ROW / 2:g}h{COLUMN * len(text):.1f}")
        for column, (character, (front, *_)) in enumerate(row):
            x, middle = MARGIN + COLUMN * column, MARGIN + COLUMN * (column + 0.5)
            arms = ARMS.get(character) if character not in "─━" else None
            if arms:
                left, right, up, down = map(bool, arms)
                path = lines.setdefault((front, max(arms)), [])
                if left or right:
                    path.append(f"M{x if left else middle:.1f} {top + ROW / 2:g}h{COLUMN / 2 * (left + right):.1f}")
                if up or down:
                    path.append(f"M{middle:.1f} {top if up else top + ROW / 2:g}v{ROW / 2 * (up + down):g}")
            elif "\u2800" <= character <= "\u28ff":
                for bit, (across, below) in enumerate(DOTS):
                    if ord(character) >> bit & 1:
                        place = f"M{x + COLUMN * (0.25 + 0.5 * across):.1f} {top + ROW * (0.125 + 0.25 * below):.1f}h0"
                        dots.setdefault(front, []).append(place)
    for (front, weight), path in lines.items():
        yield f'<path stroke="{front}" stroke-width="{1.2 * weight:g}" fill="none" d="{"".join(path)}"/>'
    for front, path in dots.items():
        yield f'<path stroke="{front}" stroke-width="2.4" stroke-linecap="round" d="{"".join(path)}"/>'


def main():
    style = Style()
    rows = [list(cells(line, style)) for line in sys.stdin.read().rstrip().splitlines()]
    for row in rows:
        while row and row[-1][0] == " " and not row[-1][1][1]:
            row.pop()
    width = 2 * MARGIN + COLUMN * max(map(len, rows), default=1)
    height = 2 * MARGIN + ROW * len(rows)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}">')
    print(f'<rect width="{width:.0f}" height="{height}" rx="8" fill="{PAPER}"/>')
    print(f'<g font-family="ui-monospace, DejaVu Sans Mono, monospace" font-size="13" fill="{TEXT}">')
    for index, row in enumerate(rows):
        for element in [*backs(index, row), *texts(index, row)]:
            print(element)
    for element in drawn(rows):
        print(element)
    print("</g>\n</svg>")


if __name__ == "__main__":
    main()
