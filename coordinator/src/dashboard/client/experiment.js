// One experiment: how it goes, and what can be learned from it.

import { experimentActions } from './actions.js';
import { get, query, text } from './api.js';
import { axis, LINES, picture, tooltip, vertical } from './charts.js';
import { badge, failure, fill, h, section, select, tile, tiles, trialLink } from './elements.js';
import { pager, stateOf } from './experiments.js';
import { duration, moment, number, percent, whole, withUnit, words } from './format.js';
import { ladder, savings } from './ladder.js';
import { importance, parallel, plane } from './space.js';
import { table } from './table.js';
import { colour } from './theme.js';
import { timeline } from './timeline.js';

/** Trials whose curves are read from the store, where others than those of rungs are wanted. */
const BEST = 8;
/** Most trials that are compared. */
const COMPARED_MAX = 8;
const SIZE = 25;

export function experiment(id, session) {
    const state = { experiment: null, compared: new Set(), metric: 'results', names: [] };
    const title = h('div', { class: 'head' });
    const facts = h('div');
    const about = h('div');
    const learning = curves(id, state);
    const rungs = ladder(id);
    const spread = parallel(id);
    const matter = importance();
    const two = plane(id);
    const slots = timeline('Timeline of slots', false);
    const compare = comparison(id, state);
    const trials = trialTable(id, state, () => compare.refresh());
    const decided = h('div');
    const parts = [learning, rungs, spread, matter, two, slots, compare];
    const element = h('div', { class: 'page' }, title, facts,
        h('div', { class: 'grid' },
            h('div', { class: 'wide' }, learning.element), h('div', { class: 'wide' }, trials.element),
            h('div', { class: 'wide' }, compare.element), rungs.element, matter.element,
            h('div', { class: 'wide' }, spread.element), two.element, h('div', null, decided, about),
            h('div', { class: 'wide' }, slots.element)));

    async function refresh() {
        const answer = await get(`/experiments/${id}`);
        state.experiment = answer;
        fill(title, h('div', null, h('h1', null, id, ' ', badge(stateOf(answer))),
            answer.description ? h('p', { class: 'note' }, answer.description) : null,
            answer.reason ? h('p', { class: 'notice' }, answer.reason) : null), experimentActions(answer, session));
        fill(facts, figures(answer));
        fill(decided, decisions(id, answer));
        fill(about, setup(id, answer));
        const [points, spans, shares] = await Promise.all([
            get(`/experiments/${id}/points?limit=500`), get(`/experiments/${id}/timeline`),
            get(`/experiments/${id}/importance`), learning.refresh(), rungs.refresh(), trials.refresh(), compare.refresh(),
        ]);
        const data = { experiment: answer, points };
        await Promise.all([spread.update(data), two.update(data), matter.update(shares), slots.update(spans)]);
    }

    return { title: id, element, refresh, dispose: () => parts.forEach((part) => part.dispose()) };
}

function figures(answer) {
    const best = answer.best;
    const { metric, mode } = answer.objectives[0];
    const took = ((answer.ended_at_ms ?? answer.now_ms) - answer.created_at_ms) / 1000;
    return tiles(
        tile(`Best ${words(metric)} (${mode})`, best ? [number(best.objective), ' ', trialLink(answer.id, best.trial)] : '-'),
        best && best.test !== null ? tile(`Test ${words(metric)}`, number(best.test), 'Scored once, for the chosen trial') : null,
        tile('Trials', [`${whole(answer.num_trials)} of ${whole(answer.max_trials)}`,
            h('small', null, Object.entries(answer.trials).map(([state, count]) => `${count} ${state}`).join(', '))]),
        tile(answer.ended_at_ms === null ? 'Runs for' : 'Took', [duration(took),
            answer.seconds_left === null ? null : h('small', null, `about ${duration(answer.seconds_left)} left`)]),
        tile('Slots', [number(answer.slots), h('small', null, `${duration(answer.slot_seconds)} used`)]),
        answer.ended_at_ms === null ? tile('Speed', [number(answer.examples_per_second), h('small', null, 'examples/s')]) : null,
        tile('Saved by early stopping', [percent(answer.savings.saved_share),
            h('small', null, savings(answer.savings, percent, duration))]));
}

function decisions(id, answer) {
    const list = h('ol', { class: 'decisions' }, answer.decisions.map((one) => h('li', null,
        h('time', null, moment(one.at_ms)), ' ', one.trial === null ? null : [trialLink(id, one.trial), ': '], one.text)));
    const more = answer.num_decisions - answer.decisions.length;
    return section('What was decided', null, answer.decisions.length ? list : h('p', { class: 'empty' }, 'nothing yet'),
        more > 0 ? h('p', { class: 'note' }, `${more} earlier ones; a trial's page has all of that trial`) : null);
}

function range(one) {
    if (one.values.length && one.kind === 'values') return one.values.map(number).join(', ');
    return `${number(one.min)} to ${number(one.max)}${one.log ? ', by factors' : ''}`;
}

function setup(id, answer) {
    const code = h('pre', { class: 'code', tabindex: '0', 'aria-label': 'Manifest' });
    const fold = h('details', { class: 'behind' }, h('summary', null, 'Manifest'), code);
    fold.addEventListener('toggle', async () => {
        if (!fold.open || code.textContent) return;
        try {
            code.textContent = await text(`/experiments/${id}/manifest`);
        } catch (error) {
            code.replaceWith(failure(error));
        }
    });
    const row = (name, value) => [h('dt', null, name), h('dd', null, value)];
    const data = answer.data;
    return section('Set-up', null, h('dl', { class: 'facts' },
        row('Searched', h('ul', null, answer.parameters.map((one) => h('li', null, `${words(one.name)}: ${range(one)}`)))),
        row('Sampler, pruner', `${answer.sampler}, ${answer.pruner}`),
        row('Model', answer.model), row('Seed', answer.seed), row('A trial takes', answer.slots_per_trial),
        answer.constraints.length ? row('Constraints', answer.constraints.join('; ')) : null,
        data ? row('Examples', `${whole(data.num_train)} train, ${whole(data.num_validation)} validation, ${whole(data.num_test)} test`) : null,
        data ? row('Classes', data.labels.join(', ')) : null,
        row('Project, priority', `${answer.project ?? 'none'}, ${answer.priority}`),
        row('Files', answer.location),
        answer.best?.model ? row('Best model', answer.best.model) : null,
        answer.warnings.length ? row('Warnings', answer.warnings.join('; ')) : null), fold);
}

/** The learning curves of all trials, the best in front. */
function curves(id, state) {
    const tools = h('div', { class: 'fields' });
    const chart = picture('Learning curves', {
        height: 360, tools, draw: (data) => drawCurves(data, state),
        onclick: ({ seriesName }) => document.dispatchEvent(new CustomEvent('go',
            { detail: `/experiments/${id}/trials/${seriesName.slice(1)}` })),
    });

    async function ofStore(name, results) {
        const best = results.trials.slice(0, BEST);
        const read = (trial) => get(`/experiments/${id}/trials/${trial.number}/curves?points=200&name=${name}`)
            .then((answer) => ({ ...trial, steps: answer.curves[0]?.steps ?? [], values: answer.curves[0]?.means ?? [] }));
        return { metric: name, total: results.total, trials: await Promise.all(best.map(read)) };
    }

    async function learnNames(results) {
        if (state.names.length || !results.trials.length) return;
        const answer = await get(`/experiments/${id}/trials/${results.trials[0].number}/curves?points=2`);
        state.names = answer.curves.map((curve) => [curve.name, `${withUnit(curve.name, curve.unit)}, best ${BEST}`]);
        const options = [['results', `${words(results.metric)} at rungs, all trials`], ...state.names];
        tools.replaceChildren(select('show', options, state.metric, (metric) => {
            state.metric = metric;
            refresh();
        }));
    }

    async function refresh() {
        const results = await get(`/experiments/${id}/results?limit=300`);
        await learnNames(results).catch(() => {});
        const isOfRungs = state.metric === 'results';
        await chart.update(isOfRungs ? results : await ofStore(state.metric, results));
    }

    return { element: chart.element, refresh, dispose: chart.dispose };
}

/** Lines that stand out. */
const FRONT = 6;

function drawCurves({ metric, total, trials }, state) {
    const drawn = trials.filter((trial) => trial.steps.length);
    if (!drawn.length) return { empty: 'No results yet: a trial has its first when it reaches the first rung.' };
    const isOfRungs = state.metric === 'results';
    const line = (trial, index) => {
        const isFront = index < (isOfRungs ? FRONT : BEST);
        return {
            name: `t${trial.number}`, type: 'line', showSymbol: isOfRungs, symbolSize: isFront ? 6 : 3, sampling: 'lttb',
            z: isFront ? 10 - index : 1, emphasis: { focus: 'series', lineStyle: { width: 3, opacity: 1 } },
            lineStyle: isFront ? { width: 2.2 } : { width: 1, opacity: 0.45, color: colour('faint') },
            itemStyle: { color: isFront ? LINES[index % LINES.length] : colour('faint'), opacity: isFront ? 1 : 0.45 },
            endLabel: { show: isFront, formatter: '{a}', color: LINES[index % LINES.length] },
            data: trial.steps.map((step, place) => [step, trial.values[place]]),
        };
    };
    return {
        words: `${words(metric)} of ${drawn.length} of ${total} trials. The best is t${drawn[0].number}, ` +
            `${number(drawn[0].values.at(-1))} at step ${drawn[0].steps.at(-1)}.`,
        table: { titles: ['trial', 'step', words(metric), 'trial is'],
            rows: drawn.flatMap((trial) => trial.steps.map((step, place) =>
                [`t${trial.number}`, step, number(trial.values[place]), trial.state])) },
        option: {
            tooltip: tooltip(({ seriesName, value, seriesIndex }) => `${seriesName} (${drawn[seriesIndex].state}), ` +
                `place ${drawn[seriesIndex].rank}\nstep ${value[0]}: ${number(value[1])}`),
            grid: { left: 12, right: 50, top: 30, bottom: 34, containLabel: true },
            xAxis: axis('optimizer steps', { type: 'value', min: 0 }),
            yAxis: vertical(words(metric), { type: 'value', axisLabel: { color: colour('faint'), formatter: number } }),
            series: drawn.map(line),
        },
    };
}

const STATES = ['running', 'pending', 'paused', 'completed', 'stopped', 'canceled', 'failed'];

/** The table of trials: filtered, sorted and cut into pages by the coordinator. */
function trialTable(id, state, oncompare) {
    const wanted = { state: '', q: '', sort: 'rank', descending: '', page: 1 };
    const bounds = {};
    const list = h('div');
    const foot = h('div', { class: 'pager' });
    const limits = h('div', { class: 'fields' });
    const limitFold = h('details', { class: 'behind' }, h('summary', null, 'Filter by hyperparameters'), limits);
    const problem = h('p', { class: 'notice', role: 'alert', hidden: true });
    const change = (values) => {
        Object.assign(wanted, { page: 1 }, values);
        return refresh().catch(() => {});
    };
    const search = h('input', { type: 'search', size: 8, placeholder: 't12', onchange: () => change({ q: search.value.trim() }) });
    const element = section('Trials', null, h('div', { class: 'fields' },
        select('state', [['', 'all'], ...STATES.map((one) => [one, one])], '', (value) => change({ state: value })),
        h('label', { class: 'field' }, h('span', null, 'number'), search)), limitFold, problem, list, foot);

    function bound(name, side) {
        const input = h('input', { type: 'number', step: 'any', size: 8, 'aria-label': `${side} ${words(name)}`, onchange: () => {
            bounds[`${side}.${name}`] = input.value;
            change({});
        } });
        return input;
    }

    function onsort(column) {
        const isSame = wanted.sort === column;
        change({ sort: column, descending: isSame && !wanted.descending ? '1' : '' })
            .then(() => list.querySelector(`[data-sort="${column}"]`)?.focus());
    }

    async function refresh() {
        const { parameters, objectives } = state.experiment;
        if (!limits.childElementCount && parameters.length) {
            limits.append(...parameters.map((one) => h('div', { class: 'field' }, h('span', null, words(one.name)),
                h('span', null, bound(one.name, 'min'), ' to ', bound(one.name, 'max')))));
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
        const order = { column: wanted.sort, descending: Boolean(wanted.descending) };
        const made = table(`Trials of ${id}`, columns(id, parameters, objectives, state, oncompare), {
            order, onsort, empty: 'No trial fits.', mark: (row) => (row.rank === 1 ? 'best' : null),
        });
        made.update(answer.trials);
        const place = list.querySelector('.scroll')?.scrollLeft ?? 0;
        const focused = list.contains(document.activeElement) ? document.activeElement.dataset : null;
        list.replaceChildren(made.element);
        made.element.scrollLeft = place;
        if (focused?.sort) list.querySelector(`[data-sort="${focused.sort}"]`)?.focus();
        if (focused?.trial) list.querySelector(`[data-trial="${focused.trial}"]`)?.focus();
        fill(foot, pager(wanted.page, Math.ceil(answer.total / SIZE), (page) => {
            wanted.page = page;
            refresh().catch(() => {});
        }, answer.total, 'trials'));
    }

    return { element, refresh };
}

function columns(id, parameters, objectives, state, oncompare) {
    const pick = (row) => h('input', {
        type: 'checkbox', 'aria-label': `Compare t${row.number}`, 'data-trial': row.number, checked: state.compared.has(row.number),
        onchange: (event) => {
            if (event.target.checked && state.compared.size < COMPARED_MAX) state.compared.add(row.number);
            else state.compared.delete(row.number);
            event.target.checked = state.compared.has(row.number);
            oncompare();
        },
    });
    return [
        { title: 'Compare', cell: pick },
        { title: 'Rank', sort: 'rank', number: true, cell: (row) => number(row.rank) },
        { title: 'Trial', sort: 'number', head: true, cell: (row) => trialLink(id, row.number) },
        { title: 'State', sort: 'state', cell: (row) => badge(row.state) },
        ...objectives.map((one, index) => ({ title: words(one.metric), sort: index === 0 ? 'objective' : null, number: true,
            cell: (row) => number(row.objectives[index]) })),
        { title: 'Step', sort: 'step', number: true, cell: (row) => (row.target_step > row.step ?
            `${number(row.step)} of ${number(row.target_step)}` : number(row.step)) },
        { title: 'Rungs', sort: 'rungs', number: true, cell: (row) => number(row.rungs_passed) },
        ...parameters.map((one) => ({ title: words(one.name), sort: `p.${one.name}`, number: true,
            cell: (row) => number(row.parameters[one.name]) })),
        { title: 'Slot time', sort: 'used', number: true, cell: (row) => duration(row.used_seconds) },
        { title: 'Why', cell: (row) => h('span', { class: 'reason', title: row.reason }, row.reason) },
    ];
}

/** The trials that are ticked, side by side. */
function comparison(id, state) {
    const tableBox = h('div');
    const tools = h('div', { class: 'fields' });
    const chosen = { metric: 'train_loss' };
    const chart = picture('Curves of the compared trials', { height: 280, tools, level: 'h3', draw: ({ name, trials }) => {
        const own = trials.map((trial) => [trial, trial.curves.find((curve) => curve.name === name)]).filter(([, curve]) => curve);
        if (!own.length) return { empty: `None of them has measured ${words(name)}.` };
        const unit = own[0][1].unit;
        return {
            words: own.map(([trial, curve]) => `t${trial.number} ends at ${number(curve.means.at(-1))}`).join(', '),
            table: { titles: ['trial', 'step', words(name)], rows: own.flatMap(([trial, curve]) =>
                curve.steps.map((step, index) => [`t${trial.number}`, step, number(curve.means[index])])) },
            option: {
                tooltip: tooltip(undefined, 'axis'),
                grid: { left: 12, right: 50, top: 30, bottom: 34, containLabel: true },
                xAxis: axis('optimizer steps', { type: 'value', min: 0 }),
                yAxis: vertical(withUnit(name, unit), { type: 'value', axisLabel: { color: colour('faint'), formatter: number } }),
                series: own.map(([trial, curve], index) => ({
                    name: `t${trial.number}`, type: 'line', showSymbol: curve.steps.length < 20,
                    lineStyle: { type: index % 2 ? 'dashed' : 'solid', width: 2 },
                    endLabel: { show: true, formatter: '{a}', color: LINES[index % LINES.length] },
                    data: curve.steps.map((step, place) => [step, curve.means[place]]),
                })),
            },
        };
    } });
    const clear = h('button', { onclick: () => {
        state.compared.clear();
        document.dispatchEvent(new CustomEvent('look'));
        refresh();
    } }, 'Clear');
    const element = section('Compared trials', { hidden: true, class: 'compared' }, clear, tableBox, chart.element);

    function sideBySide(trials) {
        const names = Object.keys(trials[0].parameters);
        const metrics = Object.keys(trials[0].validation?.scores ?? {});
        const row = (title, cell) => {
            const cells = trials.map(cell);
            const differs = new Set(cells.map(String)).size > 1;
            return h('tr', { class: differs ? 'differs' : null }, h('th', { scope: 'row' }, title),
                cells.map((one) => h('td', { class: 'number' }, one)));
        };
        return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Compared trials' }, h('table', null,
            h('caption', { class: 'hidden' }, 'Compared trials'),
            h('thead', null, h('tr', null, h('td'), trials.map((trial) => h('th', { scope: 'col', class: 'number' }, trialLink(id, trial.number))))),
            h('tbody', null, row('state', (trial) => trial.state), row('step', (trial) => number(trial.step)),
                names.map((name) => row(words(name), (trial) => number(trial.parameters[name]))),
                metrics.map((name) => row(`validation ${words(name)}`, (trial) => number(trial.validation?.scores[name]))))));
    }

    async function refresh() {
        element.hidden = state.compared.size === 0;
        if (element.hidden) return;
        const numbers = [...state.compared].sort((a, b) => a - b);
        const read = async (one) => ({ ...await get(`/experiments/${id}/trials/${one}`),
            ...await get(`/experiments/${id}/trials/${one}/curves?points=200`) });
        const trials = await Promise.all(numbers.map(read));
        fill(tableBox, sideBySide(trials));
        const names = [...new Set(trials.flatMap((trial) => trial.curves.map((curve) => curve.name)))];
        if (!names.includes(chosen.metric) && names.length) [chosen.metric] = names;
        tools.replaceChildren(select('show', names.map((name) => [name, words(name)]), chosen.metric, (name) => {
            chosen.metric = name;
            chart.update({ name, trials });
        }));
        await chart.update({ name: chosen.metric, trials });
    }

    return { element, refresh, dispose: chart.dispose };
}

