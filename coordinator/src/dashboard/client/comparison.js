// The trials that are ticked, side by side.

import { get } from './api.js';
import { apart, axis, bounds, labels, mark, picture, tooltip, vertical } from './charts.js';
import { fill, freshId, h, select, trialLink } from './elements.js';
import { number, score, setting, withUnit, words } from './format.js';

/** Of one experiment; the numbers of the trials are in `state.compared`. */
export function comparison(id, state) {
    const tableBox = h('div');
    const tools = h('div', { class: 'fields' });
    const chosen = { metric: 'train_loss' };
    const chart = picture('Curves of the compared trials', {
        height: 280,
        tools,
        level: 'h3',
        draw: ({ name, trials }) => {
            const own = trials
                .map((trial) => [trial, trial.curves.find((curve) => curve.name === name)])
                .filter(([, curve]) => curve);
            if (!own.length) return { empty: `None of them has measured ${words(name)}.` };
            const unit = own[0][1].unit;
            return {
                words: own
                    .map(([trial, curve]) => `t${trial.number} ends at ${number(curve.means.at(-1))}`)
                    .join(', '),
                table: {
                    titles: ['trial', 'step', words(name)],
                    rows: own.flatMap(([trial, curve]) =>
                        curve.steps.map((step, index) => [
                            `t${trial.number}`,
                            step,
                            number(curve.means[index]),
                        ]),
                    ),
                },
                after: apart,
                option: {
                    tooltip: tooltip(undefined, 'axis'),
                    grid: { left: 12, right: 50, top: 30, bottom: 34, containLabel: true },
                    xAxis: axis('optimizer steps', { type: 'value', min: 0, max: 'dataMax' }),
                    yAxis: vertical(withUnit(name, unit), {
                        type: 'value',
                        ...bounds(name),
                        axisLabel: labels(number),
                    }),
                    series: own.map(([trial, curve], index) => ({
                        name: `t${trial.number}`,
                        type: 'line',
                        showSymbol: curve.steps.length < 20,
                        lineStyle: { type: index % 2 ? 'dashed' : 'solid', width: 2 },
                        endLabel: { show: true, formatter: '{a}', color: mark(index) },
                        data: curve.steps.map((step, place) => [step, curve.means[place]]),
                    })),
                },
            };
        },
    });
    const clear = h(
        'button',
        {
            onclick: () => {
                state.compared.clear();
                document.dispatchEvent(new CustomEvent('look'));
                refresh();
            },
        },
        'Clear',
    );
    const title = freshId('compared');
    const element = h(
        'section',
        { hidden: true, class: 'card compared wide', 'aria-labelledby': title },
        h('div', { class: 'head' }, h('h2', { id: title, tabindex: '-1' }, 'Compared trials'), clear),
        h('p', { class: 'note' }, 'What differs is in bold type.'),
        tableBox,
        chart.element,
    );
    const shown = { names: '' };

    function sideBySide(trials) {
        const names = Object.keys(trials[0].parameters);
        const metrics = Object.keys(trials[0].validation?.scores ?? {});
        const parameter = (name) => state.experiment.parameters.find((one) => one.name === name) ?? {};
        const row = (title, cell) => {
            const cells = trials.map(cell);
            const differs = new Set(cells.map(String)).size > 1;
            return h(
                'tr',
                { class: differs ? 'differs' : null },
                h('th', { scope: 'row' }, title),
                cells.map((one) => h('td', { class: 'number' }, one)),
            );
        };
        return h(
            'div',
            { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': 'Compared trials' },
            h(
                'table',
                null,
                h('caption', { class: 'hidden' }, 'Compared trials'),
                h(
                    'thead',
                    null,
                    h(
                        'tr',
                        null,
                        h('td'),
                        trials.map((trial) =>
                            h('th', { scope: 'col', class: 'number' }, trialLink(id, trial.number)),
                        ),
                    ),
                ),
                h(
                    'tbody',
                    null,
                    row('state', (trial) => trial.state),
                    row('step', (trial) => number(trial.step)),
                    names.map((name) => row(words(name), (trial) => setting(parameter(name), trial.parameters[name]))),
                    metrics.map((name) =>
                        row(`validation ${words(name)}`, (trial) => score(trial.validation?.scores[name])),
                    ),
                ),
            ),
        );
    }

    async function refresh() {
        element.hidden = state.compared.size === 0;
        if (element.hidden) return;
        const numbers = [...state.compared].sort((a, b) => a - b);
        const read = async (one) => ({
            ...(await get(`/experiments/${id}/trials/${one}`)),
            ...(await get(`/experiments/${id}/trials/${one}/curves?points=200`)),
        });
        const trials = await Promise.all(numbers.map(read));
        fill(tableBox, sideBySide(trials));
        const names = [...new Set(trials.flatMap((trial) => trial.curves.map((curve) => curve.name)))];
        if (!names.includes(chosen.metric) && names.length) [chosen.metric] = names;
        shown.trials = trials;
        // A list that somebody has opened stays as long as it says the same.
        if (shown.names !== names.join()) {
            shown.names = names.join();
            tools.replaceChildren(
                select(
                    'Show',
                    names.map((name) => [name, words(name)]),
                    chosen.metric,
                    (name) => {
                        chosen.metric = name;
                        chart.update({ name, trials: shown.trials });
                    },
                ),
            );
        }
        await chart.update({ name: chosen.metric, trials });
    }

    /** Leads there, with the keyboard too: it may be far below what was ticked. */
    function show() {
        element.scrollIntoView({ block: 'start' });
        document.getElementById(title).focus({ preventScroll: true });
    }

    return { element, refresh, show, dispose: chart.dispose };
}
