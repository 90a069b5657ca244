// The learning curves of all trials, the best in front.

import { get } from './api.js';
import { apart, axis, bounds, labels, mark, picture, tooltip, vertical } from './charts.js';
import { h, select } from './elements.js';
import { counted, number, withUnit, words } from './format.js';
import { colour } from './theme.js';

/** Trials whose curves are read from the store, where others than those of rungs are wanted. */
const BEST = 8;

/** Of one experiment; what is shown is kept in `state`. */
export function learning(id, state) {
    const tools = h('div', { class: 'fields' });
    const chart = picture('Learning curves', {
        height: 360,
        tools,
        note: 'The best in colour, all others in grey. A click on a line opens the trial.',
        draw: (data) => drawCurves(data, state),
        onclick: ({ seriesName }) =>
            document.dispatchEvent(
                new CustomEvent('go', { detail: `/experiments/${id}/trials/${seriesName.slice(1)}` }),
            ),
    });

    /** The best trials, and those that run now and may have no result yet. */
    async function wanted(results) {
        const best = results.trials.slice(0, BEST);
        if (state.experiment?.ended_at_ms !== null) return best;
        const running = (await get(`/experiments/${id}/trials?state=running&size=${BEST}`)).trials;
        const fresh = running.filter((trial) => !best.some((one) => one.number === trial.number));
        return [
            ...best,
            ...fresh.map(({ number: one, state: word, rank }) => ({ number: one, state: word, rank })),
        ];
    }

    async function ofStore(name, results) {
        const read = async (trial) => {
            const path = `/experiments/${id}/trials/${trial.number}/curves?points=200&name=${name}`;
            const [curve] = (await get(path)).curves;
            return { ...trial, steps: curve?.steps ?? [], values: curve?.means ?? [] };
        };
        const trials = await Promise.all((await wanted(results)).map(read));
        return { metric: name, total: results.total, trials };
    }

    async function learnNames(results) {
        if (state.names.length) return;
        const [first] = await wanted(results);
        if (!first) return;
        const answer = await get(`/experiments/${id}/trials/${first.number}/curves?points=2`);
        if (!answer.curves.length) return;
        state.names = answer.curves.map((curve) => [curve.name, withUnit(curve.name, curve.unit)]);
        const options = [['results', `${words(results.metric)} at rungs, all trials`], ...state.names];
        tools.replaceChildren(
            select('Show', options, state.metric, (metric) => {
                state.metric = metric;
                refresh();
            }),
        );
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
    if (!drawn.length)
        return {
            empty: 'No results yet: a trial has its first one at the first rung. Runs show what they measure before.',
        };
    const isOfRungs = state.metric === 'results';
    const line = (trial, index) => {
        const isFront = index < (isOfRungs ? FRONT : BEST);
        return {
            name: `t${trial.number}`,
            type: 'line',
            showSymbol: isOfRungs,
            symbolSize: isFront ? 6 : 3,
            sampling: 'lttb',
            z: isFront ? 10 - index : 1,
            emphasis: { focus: 'series', lineStyle: { width: 3, opacity: 1 } },
            lineStyle: isFront ? { width: 2.2 } : { width: 1, opacity: 0.6, color: colour('faint') },
            itemStyle: {
                color: isFront ? mark(index) : colour('faint'),
                opacity: isFront ? 1 : 0.6,
            },
            endLabel: { show: isFront, formatter: '{a}', color: mark(index) },
            data: trial.steps.map((step, place) => [step, trial.values[place]]),
        };
    };
    return {
        note: isOfRungs ? '' : `Drawn are the ${BEST} best and those that run.`,
        words:
            `${words(metric)} of ${drawn.length} of ${counted(total, 'trial')}. The best trial is t${drawn[0].number}, ` +
            `which ends at ${number(drawn[0].values.at(-1))} at step ${drawn[0].steps.at(-1)}.`,
        table: {
            titles: ['trial', 'step', words(metric), 'trial is'],
            rows: drawn.flatMap((trial) =>
                trial.steps.map((step, place) => [
                    `t${trial.number}`,
                    step,
                    number(trial.values[place]),
                    trial.state,
                ]),
            ),
        },
        after: apart,
        option: {
            tooltip: tooltip(
                ({ seriesName, value, seriesIndex }) =>
                    `${seriesName} (${drawn[seriesIndex].state}), ` +
                    `place ${drawn[seriesIndex].rank ?? '-'}\nstep ${value[0]}: ${number(value[1])}`,
            ),
            grid: { left: 12, right: 50, top: 30, bottom: 34, containLabel: true },
            xAxis: axis('optimizer steps', { type: 'value', min: 0, max: 'dataMax' }),
            yAxis: vertical(words(metric), {
                type: 'value',
                ...bounds(metric),
                axisLabel: labels(number),
            }),
            series: drawn.map(line),
        },
    };
}
