// Tables: a heading that sorts, rows that are made anew when something has changed.

import { fill, h, phrase } from './elements.js';

/**
 * Columns are `{ title, number, kind, sort, cell(row) }`; `sort` is the name the server knows, absent where one cannot
 * sort, `kind` a class of its cells. `order` is `{ column, descending }`, `onsort(column)` asks for another. `update`
 * takes rows, and what is said where there are none.
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
    const update = (rows, said = options.empty) =>
        fill(
            body,
            rows.length
                ? rows.map((row) => line(columns, row, options.mark))
                : h(
                      'tr',
                      null,
                      h('td', { colspan: columns.length, class: 'empty' }, phrase(said ?? 'nothing yet')),
                  ),
        );
    const box = h('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': caption }, element);
    return { element: box, update };
}

/** Classes of the cells of a column. */
function kinds(column) {
    return [column.number ? 'number' : '', column.kind ?? ''].join(' ').trim() || null;
}

function heading(column, order, onsort) {
    const attributes = { scope: 'col', class: kinds(column) };
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
            return h(tag, { class: kinds(column), scope: column.head ? 'row' : null }, column.cell(row));
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
