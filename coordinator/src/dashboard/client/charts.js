// Pictures by ECharts, each with a heading, words for those who do not see it, and a table behind it.

import { freshId, h } from './elements.js';
import { plain } from './table.js';
import { colour, isDark, onTheme } from './theme.js';

let library;

/** The library is large, and the first page does not need it. */
function load() {
    library ??= import('/assets/echarts.js');
    return library;
}

/** Colours of lines that stand out, told apart by people who see few colours too (Okabe and Ito). */
export const LINES = [
    '#2b8fd6',
    '#d55e00',
    '#009e73',
    '#cc79a7',
    '#e69f00',
    '#56b4e9',
    '#b08d20',
    '#7a5cc0',
    '#d0507a',
    '#5f9e5f',
];

/** From bad to good. */
export function ramp() {
    return isDark()
        ? ['#33415c', '#2f7f8f', '#58b368', '#f2e14c']
        : ['#d5d9e2', '#74a9cf', '#2b8c6b', '#0b4f3a'];
}

/**
 * A picture. `draw(data)` gives `{ option, words, table: { titles, rows } }`, or `{ empty: 'why' }`.
 * `onclick` gets what ECharts says of the mark that was clicked.
 */
export function picture(title, { draw, height = 300, onclick, tools, note, wide = 0, level = 'h2' }) {
    const id = freshId('picture');
    const canvas = h('div', { class: 'canvas', role: 'img', 'aria-labelledby': id });
    canvas.style.height = `${height}px`;
    canvas.style.minWidth = `${wide}px`;
    const said = h('p', { class: 'empty', hidden: true });
    const tableBox = h('div');
    const behind = h('details', { class: 'behind' }, h('summary', null, 'Show as a table'), tableBox);
    const element = h(
        'section',
        { class: 'card picture', 'aria-labelledby': id },
        h('div', { class: 'head' }, h(level, { id }, title), tools ?? null),
        note ? h('p', { class: 'note' }, note) : null,
        h('div', { class: 'across' }, canvas),
        said,
        behind,
    );
    const state = { chart: null, last: null, isOver: false, drawn: null };
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
        said.textContent = drawn.empty ?? '';
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
            state.watcher = new ResizeObserver(() => state.chart?.resize());
            state.watcher.observe(canvas);
        }
        state.chart.setOption({ ...common(), ...drawn.option }, { notMerge: true });
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
        color: LINES,
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
        pageIconInactiveColor: colour('line'),
        itemWidth: 16,
        itemHeight: 8,
        textStyle: { color: colour('faint') },
        inactiveColor: colour('line'),
    };
}

export function axis(name, more = {}) {
    const line = { lineStyle: { color: colour('line') } };
    return {
        name,
        nameLocation: 'middle',
        nameGap: 28,
        scale: true,
        nameTextStyle: { color: colour('faint') },
        axisLabel: { color: colour('faint'), hideOverlap: true },
        axisLine: line,
        splitLine: line,
        ...more,
    };
}

export function vertical(name, more = {}) {
    return axis(name, {
        nameLocation: 'end',
        nameGap: 10,
        nameTextStyle: { color: colour('faint'), align: 'left' },
        ...more,
    });
}
