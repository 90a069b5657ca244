// Pictures by ECharts, each with a heading, words for those who do not see it, and a table behind it.

import { freshId, h, phrase } from './elements.js';
import { plain } from './table.js';
import { colour, onTheme } from './theme.js';

let library;

/** The library is large, and the first page does not need it. */
function load() {
    library ??= import('/assets/echarts.js');
    return library;
}

/** Marks that are told apart. */
const MARKS = 12;

/** The colour of a line or a bar that stands out. */
export function mark(index) {
    return colour(`mark-${index % MARKS}`);
}

/** Colours from bad to good. */
export function ramp() {
    return [0, 1, 2, 3].map((step) => colour(`ramp-${step}`));
}

/** Colours from none to all, on which text can be read. */
export function heat() {
    return [0, 1, 2].map((step) => colour(`heat-${step}`));
}

/**
 * A picture. `draw(data)` gives `{ option, words, table: { titles, rows } }`, or `{ empty: 'why' }`; `after(chart,
 * option)`, where it is given, is called whenever the picture has its place or another size, `note` stands behind the
 * one of the picture.
 * `onclick` gets what ECharts says of the mark that was clicked.
 */
export function picture(title, { draw, height = 300, onclick, tools, note, wide = 0, level = 'h2' }) {
    const id = freshId('picture');
    const canvas = h('div', { class: 'canvas', role: 'img', 'aria-labelledby': id });
    canvas.style.height = `${height}px`;
    canvas.style.minWidth = `${wide}px`;
    const said = h('p', { class: 'empty', hidden: true });
    const noted = h('p', { class: 'note', hidden: !note }, note ?? '');
    const tableBox = h('div');
    const behind = h('details', { class: 'behind' }, h('summary', null, 'Show as a table'), tableBox);
    const element = h(
        'section',
        { class: 'card picture', 'aria-labelledby': id },
        h('div', { class: 'head' }, h(level, { id }, title), tools ?? null),
        noted,
        // What is wider than a phone is moved by keys too.
        h('div', { class: 'across', ...(wide && { tabindex: '0', role: 'group', 'aria-labelledby': id }) }, canvas),
        said,
        behind,
    );
    const state = { chart: null, last: null, isOver: false, drawn: null };
    // It comes while the data does.
    load().catch(() => {});
    behind.addEventListener('toggle', () => fillTable());

    function fillTable() {
        if (!behind.open || !state.drawn?.table) return;
        const { titles, rows } = state.drawn.table;
        tableBox.replaceChildren(plain(title, titles, rows.slice(0, 500)));
        if (rows.length > 500) tableBox.append(h('p', { class: 'note' }, `${rows.length - 500} more rows`));
    }

    async function render() {
        if (state.isOver || state.last === null) return;
        const drawn = draw(state.last);
        state.drawn = drawn;
        const isEmpty = Boolean(drawn.empty);
        said.replaceChildren(...phrase(drawn.empty ?? ''));
        noted.textContent = [note, drawn.note].filter(Boolean).join(' ');
        noted.hidden = !noted.textContent;
        said.hidden = !isEmpty;
        canvas.hidden = isEmpty;
        behind.hidden = isEmpty || !drawn.table;
        if (isEmpty) return;
        canvas.setAttribute('aria-label', `${title}. ${drawn.words ?? ''}`);
        canvas.removeAttribute('aria-labelledby');
        fillTable();
        const echarts = await load();
        if (state.isOver || !canvas.isConnected || state.drawn !== drawn) return;
        if (!state.chart) {
            state.chart = echarts.init(canvas, null, { renderer: 'canvas' });
            if (onclick) state.chart.on('click', onclick);
            state.watcher = new ResizeObserver(() => {
                state.chart?.resize();
                if (state.chart) state.drawn?.after?.(state.chart, state.drawn.option);
            });
            state.watcher.observe(canvas);
        }
        state.chart.setOption({ ...common(), ...drawn.option }, { notMerge: true });
        drawn.after?.(state.chart, drawn.option);
        canvas.dataset.ready = 'true';
    }

    const forget = onTheme(render);
    return {
        element,
        update(data) {
            state.last = data;
            return render();
        },
        redraw: render,
        dispose() {
            state.isOver = true;
            forget();
            state.watcher?.disconnect();
            state.chart?.dispose();
        },
    };
}

/** What all pictures share. Tooltips are drawn, not made of markup, so that no text becomes any. */
function common() {
    return {
        animation: false,
        backgroundColor: 'transparent',
        color: Array.from({ length: MARKS }, (_, index) => mark(index)),
        textStyle: { fontFamily: 'system-ui, sans-serif', color: colour('text') },
        grid: { left: 8, right: 16, top: 28, bottom: 8, containLabel: true },
    };
}

export function tooltip(formatter, trigger = 'item') {
    return {
        trigger,
        formatter,
        renderMode: 'richText',
        confine: true,
        backgroundColor: colour('card'),
        borderColor: colour('line'),
        textStyle: { color: colour('text'), fontSize: 12 },
        axisPointer: { type: 'line', lineStyle: { color: colour('faint') } },
    };
}

/** Names of lines or bars above them. */
export function legend() {
    return {
        show: true,
        // Of many names one line is shown, with arrows to the others.
        type: 'scroll',
        top: 0,
        left: 70,
        right: 8,
        align: 'left',
        pageTextStyle: { color: colour('faint') },
        pageIconColor: colour('accent'),
        pageIconInactiveColor: colour('edge'),
        itemWidth: 16,
        itemHeight: 8,
        textStyle: { color: colour('faint') },
        inactiveColor: colour('edge'),
    };
}

/** Pixels between the names of two lines that end near each other, and how near that is. */
const NAME_HEIGHT = 13;
const NAME_WIDTH = 40;

/** Moves names at the ends of lines apart, those above upwards. */
export function apart(chart, { series }) {
    const ends = series.flatMap(({ endLabel, data }, index) => {
        if (!endLabel?.show || !data.length) return [];
        const [x, y] = chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, data.at(-1));
        return [{ index, x, y }];
    });
    ends.sort((a, b) => a.y - b.y);
    const offsets = new Map();
    const placed = [];
    for (const { index, x, y } of ends) {
        const near = placed.filter((other) => Math.abs(other.x - x) < NAME_WIDTH);
        const at = Math.max(y, ...near.map((other) => other.y + NAME_HEIGHT));
        placed.push({ x, y: at });
        offsets.set(index, at - y);
    }
    chart.setOption({
        series: series.map((_, index) => (offsets.has(index) ? { endLabel: { offset: [0, offsets.get(index)] } } : {})),
    });
}

/** Numbers along an axis. */
export function labels(formatter) {
    return { color: colour('faint'), hideOverlap: true, formatter };
}

export function axis(name, more = {}) {
    const line = { lineStyle: { color: colour('line') } };
    return {
        name,
        nameLocation: 'middle',
        nameGap: 28,
        scale: true,
        nameTextStyle: { color: colour('faint') },
        axisLabel: labels(),
        axisLine: line,
        splitLine: line,
        ...more,
    };
}

/** Scores that lie between 0 and 1. */
const SHARE = /(accuracy|f1|auc|precision|recall|share)$/;

/** Bounds of an axis of a metric: where all values are the same, a share is seen between nothing and all. */
export function bounds(metric) {
    if (!SHARE.test(metric)) return {};
    const flat = (value) => (extent) => (extent.min === extent.max ? value : null);
    return { min: flat(0), max: flat(1) };
}

export function vertical(name, more = {}) {
    return axis(name, {
        nameLocation: 'end',
        nameGap: 10,
        nameTextStyle: { color: colour('faint'), align: 'left' },
        ...more,
    });
}
