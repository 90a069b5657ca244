// All experiments, the newest first.

import { get, query } from './api.js';
import { badge, experimentLink, fill, h, select, trialLink } from './elements.js';
import { duration, moment, number, score, words } from './format.js';
import { table } from './table.js';

const SIZE = 50;

export function experiments() {
    const wanted = { q: '', state: 'all', page: 1 };
    const search = h('input', {
        type: 'search',
        placeholder: 'name, description, project',
        maxlength: 200,
        size: 30,
        oninput: () => {
            Object.assign(wanted, { q: search.value, page: 1 });
            again();
        },
    });
    const list = table('Experiments', COLUMNS, {
        empty: 'No experiments. `muster submit MANIFEST` makes one.',
    });
    const foot = h('div', { class: 'pager' });
    const element = h(
        'div',
        { class: 'page' },
        h(
            'div',
            { class: 'head' },
            h('h1', null, 'Experiments'),
            h(
                'div',
                { class: 'fields' },
                h('label', { class: 'field' }, h('span', null, 'Search'), search),
                select(
                    'Show',
                    [
                        ['all', 'all'],
                        ['open', 'not ended'],
                        ['ended', 'ended'],
                    ],
                    'all',
                    (state) => {
                        Object.assign(wanted, { state, page: 1 });
                        refresh();
                    },
                ),
            ),
        ),
        h('div', { class: 'card' }, list.element, foot),
    );
    let timer;

    function again() {
        clearTimeout(timer);
        timer = setTimeout(refresh, 200);
    }

    function turn(page) {
        wanted.page = page;
        refresh();
    }

    async function refresh() {
        const answer = await get(`/experiments${query({ ...wanted, size: SIZE })}`);
        const isNarrowed = wanted.q !== '' || wanted.state !== 'all';
        list.update(
            answer.experiments.map((row) => ({ ...row, now_ms: answer.now_ms })),
            isNarrowed ? 'No experiment fits.' : undefined,
        );
        fill(foot, pager(wanted.page, Math.ceil(answer.total / SIZE), turn, answer.total, 'experiments'));
    }

    return { title: 'Experiments', element, refresh, dispose: () => clearTimeout(timer) };
}

/** Buttons that turn pages, if there are several. */
export function pager(page, count, turn, total, what) {
    const words = h('span', null, `${total} ${what}`);
    if (count <= 1) return words;
    return [
        words,
        h(
            'span',
            { class: 'buttons' },
            h('button', { disabled: page <= 1, onclick: () => turn(page - 1) }, 'Previous'),
            ` page ${page} of ${count} `,
            h('button', { disabled: page >= count, onclick: () => turn(page + 1) }, 'Next'),
        ),
    ];
}

/** The word for where an experiment is. */
export function stateOf(row) {
    return row.paused && row.ended_at_ms === null ? 'paused' : row.state;
}

function progress(row) {
    const counts = Object.entries(row.trials)
        .map(([state, count]) => `${count} ${state}`)
        .join(', ');
    const bar = h('progress', { max: row.max_trials, value: row.num_trials, 'aria-label': 'Trials begun' });
    const [done, parts] = row.preparation;
    const text = row.state === 'preparing' && parts ? `preparing, ${done} of ${parts} parts` : counts;
    return h(
        'div',
        { class: 'stack' },
        h('span', null, `${row.num_trials} of ${row.max_trials} `, bar),
        h('small', null, text || 'none yet'),
    );
}

function best(row) {
    if (!row.best) return '-';
    const test = row.best.test === null ? null : h('small', null, `test ${score(row.best.test)}`);
    return h(
        'div',
        { class: 'stack' },
        h('span', null, score(row.best.objective), ' ', trialLink(row.id, row.best.trial)),
        test,
    );
}

const COLUMNS = [
    {
        title: 'Experiment',
        head: true,
        cell: (row) =>
            h(
                'div',
                { class: 'stack' },
                experimentLink(row.id),
                row.description ? h('small', null, row.description) : null,
            ),
    },
    {
        title: 'State',
        cell: (row) =>
            h(
                'div',
                { class: 'stack' },
                badge(stateOf(row)),
                row.reason ? h('small', null, row.reason) : null,
            ),
    },
    { title: 'Trials', cell: progress },
    { title: 'Objective', cell: (row) => row.objectives.map((one) => `${one.mode} ${words(one.metric)}`).join(', ') },
    { title: 'Best', number: true, cell: best },
    { title: 'Slots', number: true, cell: (row) => number(row.slots) },
    { title: 'Priority', number: true, cell: (row) => number(row.priority) },
    { title: 'Begun', cell: (row) => moment(row.created_at_ms) },
    {
        title: 'Time',
        number: true,
        cell: (row) =>
            h(
                'div',
                { class: 'stack' },
                h('span', null, duration(((row.ended_at_ms ?? row.now_ms) - row.created_at_ms) / 1000)),
                row.seconds_left === null
                    ? null
                    : h('small', null, `about ${duration(row.seconds_left)} left`),
            ),
    },
];
