// The table of trials: filtered, sorted and cut into pages by the coordinator.

import { get, query } from './api.js';
import { badge, fill, h, section, select, toast, trialLink } from './elements.js';
import { pager } from './experiments.js';
import { duration, number, score, setting, words } from './format.js';
import { table } from './table.js';

/** Most trials that are compared. */
const COMPARED_MAX = 8;
const SIZE = 25;
const STATES = ['running', 'pending', 'paused', 'completed', 'stopped', 'canceled', 'failed'];

/** Ticked trials are in `state.compared`; `compare` shows them side by side. */
export function trialTable(id, state, compare) {
    const wanted = { state: '', q: '', sort: 'rank', descending: '', page: 1 };
    const bounds = {};
    const list = h('div');
    const shown = { key: '', table: null };
    const foot = h('div', { class: 'pager' });
    const limits = h('div', { class: 'fields' });
    const limitFold = h(
        'details',
        { class: 'behind' },
        h('summary', null, 'Filter by hyperparameters'),
        limits,
    );
    const problem = h('p', { class: 'notice', role: 'alert', hidden: true });
    const change = (values) => {
        Object.assign(wanted, { page: 1 }, values);
        return refresh().catch(() => {});
    };
    const search = h('input', {
        type: 'search',
        size: 8,
        placeholder: 't12',
        onchange: () => change({ q: search.value.trim() }),
    });
    const lead = h('button', { class: 'primary', hidden: true, onclick: () => compare.show() }, 'Compare');
    const element = section(
        'Trials',
        null,
        h(
            'div',
            { class: 'fields' },
            select('State', [['', 'all'], ...STATES.map((one) => [one, one])], '', (value) =>
                change({ state: value }),
            ),
            h('label', { class: 'field' }, h('span', null, 'Number'), search),
            lead,
        ),
        limitFold,
        problem,
        list,
        foot,
    );

    function bound(name, side) {
        const input = h('input', {
            type: 'number',
            step: 'any',
            size: 8,
            'aria-label': `${side} ${words(name)}`,
            onchange: () => {
                bounds[`${side}.${name}`] = input.value;
                change({});
            },
        });
        return input;
    }

    function range(one) {
        return h(
            'div',
            { class: 'field' },
            h('span', null, words(one.name)),
            h('span', null, bound(one.name, 'min'), ' to ', bound(one.name, 'max')),
        );
    }

    function choice(one) {
        const options = [['', 'any'], ...one.values.map((word) => [word, word])];
        return select(words(one.name), options, '', (value) => {
            bounds[`is.${one.name}`] = value;
            change({});
        });
    }

    function onsort(column) {
        const isSame = wanted.sort === column;
        change({ sort: column, descending: isSame && !wanted.descending ? '1' : '' }).then(() =>
            list.querySelector(`[data-sort="${column}"]`)?.focus(),
        );
    }

    /** What is compared is far below; the button says that it is there. */
    function oncompare() {
        const count = state.compared.size;
        lead.hidden = count === 0;
        lead.textContent = `Show ${count} compared`;
        return compare.refresh();
    }

    /** The table; it is made anew where its headings are others. */
    function tableFor({ parameters, objectives }) {
        const order = { column: wanted.sort, descending: Boolean(wanted.descending) };
        const key = JSON.stringify([order, parameters, objectives]);
        if (shown.key !== key) {
            shown.key = key;
            const place = list.querySelector('.scroll')?.scrollLeft ?? 0;
            shown.table = table(`Trials of ${id}`, columns(id, parameters, objectives, state, oncompare), {
                order,
                onsort,
                mark: (row) => (row.rank === 1 ? 'best' : null),
            });
            list.replaceChildren(shown.table.element);
            shown.table.element.scrollLeft = place;
        }
        return shown.table;
    }

    async function refresh() {
        const { parameters } = state.experiment;
        if (!limits.childElementCount && parameters.length) {
            limits.append(...parameters.map((one) => (one.kind === 'words' ? choice(one) : range(one))));
        }
        let answer;
        try {
            answer = await get(`/experiments/${id}/trials${query({ ...wanted, ...bounds, size: SIZE })}`);
            problem.hidden = true;
        } catch (error) {
            problem.textContent = error.message;
            problem.hidden = false;
            throw error;
        }
        // What was chosen may have been let go of where it is compared.
        lead.hidden = state.compared.size === 0;
        const isNarrowed = wanted.state || wanted.q || Object.values(bounds).some(Boolean);
        const said = isNarrowed ? 'No trial fits.' : 'No trial has begun yet.';
        tableFor(state.experiment).update(answer.trials, said);
        fill(
            foot,
            pager(
                wanted.page,
                Math.ceil(answer.total / SIZE),
                (page) => {
                    wanted.page = page;
                    refresh().catch(() => {});
                },
                answer.total,
                'trials',
            ),
        );
    }

    return { element, refresh };
}

function columns(id, parameters, objectives, state, oncompare) {
    const pick = (row) =>
        h('input', {
            type: 'checkbox',
            'aria-label': `Compare t${row.number}`,
            'data-trial': row.number,
            checked: state.compared.has(row.number),
            onchange: (event) => {
                const isFull = event.target.checked && state.compared.size >= COMPARED_MAX;
                if (isFull) toast(`${COMPARED_MAX} trials are compared at most; take one off first`, 'bad');
                else if (event.target.checked) state.compared.add(row.number);
                else state.compared.delete(row.number);
                event.target.checked = state.compared.has(row.number);
                oncompare();
            },
        });
    return [
        { title: 'Compare', kind: 'pick', cell: pick },
        { title: 'Place', sort: 'rank', number: true, cell: (row) => number(row.rank) },
        { title: 'Trial', sort: 'number', head: true, cell: (row) => trialLink(id, row.number) },
        // The first thing that anybody wants to see: on a phone the rest is further right.
        ...objectives.map((one, index) => ({
            title: words(one.metric),
            sort: index === 0 ? 'objective' : null,
            number: true,
            cell: (row) => score(row.objectives[index]),
        })),
        { title: 'State', sort: 'state', cell: (row) => badge(row.state) },
        {
            title: 'Step',
            sort: 'step',
            number: true,
            cell: (row) =>
                row.target_step > row.step
                    ? `${number(row.step)} of ${number(row.target_step)}`
                    : number(row.step),
        },
        { title: 'Rungs', sort: 'rungs', number: true, cell: (row) => number(row.rungs_passed) },
        ...parameters.map((one) => ({
            title: words(one.name),
            sort: `p.${one.name}`,
            number: one.kind !== 'words',
            cell: (row) => setting(one, row.parameters[one.name]),
        })),
        { title: 'Slot time', sort: 'used', number: true, cell: (row) => duration(row.used_seconds) },
        { title: 'Why', cell: (row) => h('span', { class: 'reason', title: row.reason }, row.reason) },
    ];
}
