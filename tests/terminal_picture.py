"""Text of a terminal on standard input, an SVG picture of it on standard output.

The picture of the progress view in the README was made so, while `make demo` ran in tmux:
    tmux capture-pane -p | python3 tests/terminal_picture.py > coordinator/assets/progress.svg
"""

import html
import sys

COLUMN, ROW, MARGIN = 7.8, 18, 14

lines = [line.rstrip() for line in sys.stdin.read().rstrip().splitlines()]
width = 2 * MARGIN + COLUMN * max(map(len, lines), default=1)
height = 2 * MARGIN + ROW * len(lines)
print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}">')
print(f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#14161a"/>')
print('<g font-family="ui-monospace, DejaVu Sans Mono, monospace" font-size="13" fill="#d8dee6">')
for index, line in enumerate(lines):
    y = MARGIN + ROW * index + 13
    length = f'textLength="{COLUMN * len(line):.1f}" lengthAdjust="spacingAndGlyphs"'
    if line:
        print(f'<text x="{MARGIN}" y="{y}" xml:space="preserve" {length}>{html.escape(line)}</text>')
print("</g>\n</svg>")
