// Tables: a heading that sorts, rows that are made anew when something has changed.

import { fill, h } from './elements.js';

/**
 * Columns are `{ key, title, number, sort, cell(row) }`; `sort` is the name the server knows, absent where one cannot
 * sort. `order` is `{ column, descending }`, `onsort(column)` asks for another.
 */
export function table(caption, columns, options = {}) {
    const { order, onsort } = options;
    const head = h(
        'tr',
        null,
        columns.map((column) => heading(column, order, onsort)),
    );
    const body = h('tbody');
    const element = h(
        'table',
        null,
        h('caption', { class: 'hidden' }, caption),
        h('thead', null, head),
        body,
    );
    const update = (rows) =>
        fill(
            body,
            rows.length
                ? rows.map((row) => line(columns, row, options.mark))
                : h(
                      'tr',
                      null,
                      h('td', { colspan: columns.length, class: 'empty' }, options.empty ?? 'nothing yet'),
                  ),
        );
    const box = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption }, element);
    return { element: box, update };
}

function heading(column, order, onsort) {
    const attributes = { scope: 'col', class: column.number ? 'number' : null };
    if (!column.sort || !onsort) return h('th', attributes, column.title);
    const isThis = order.column === column.sort;
    attributes['aria-sort'] = isThis ? (order.descending ? 'descending' : 'ascending') : null;
    const sign = isThis ? (order.descending ? '\u00a0▼' : '\u00a0▲') : '';
    const button = h(
        'button',
        { class: 'sort', 'data-sort': column.sort, onclick: () => onsort(column.sort) },
        column.title,
        h('span', { 'aria-hidden': 'true' }, sign),
    );
    return h('th', attributes, button);
}

function line(columns, row, mark) {
    return h(
        'tr',
        { class: mark?.(row) },
        columns.map((column) => {
            const tag = column.head ? 'th' : 'td';
            return h(
                tag,
                { class: column.number ? 'number' : null, scope: column.head ? 'row' : null },
                column.cell(row),
            );
        }),
    );
}

/** A plain table of texts, for what stands behind a picture. */
export function plain(caption, titles, rows) {
    const columns = titles.map((title, index) => ({ title, number: index > 0, cell: (row) => row[index] }));
    const made = table(caption, columns);
    made.update(rows);
    return made.element;
}
