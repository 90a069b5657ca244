// Hyperparameters against results: parallel coordinates, importance, and any two in a plane.

import { axis, bounds, labels, mark, picture, ramp, tooltip, vertical } from './charts.js';
import { h, select } from './elements.js';
import { counted, number, percent, power, words } from './format.js';
import { colour } from './theme.js';

function extent(values) {
    const finite = values.filter(Number.isFinite);
    return [Math.min(...finite), Math.max(...finite)];
}

function scaled(objective, mode) {
    const [min, max] = extent(objective);
    const colours = mode === 'min' ? ramp().reverse() : ramp();
    const span = max > min ? [min, max] : [min, min + 1];
    return { min: span[0], max: span[1], calculable: false, show: false, inRange: { color: colours } };
}

/** The same with its colours shown on the right, and what they stand for. */
function shownScale(objective, mode) {
    const [least, most] = extent(objective);
    return {
        ...scaled(objective, mode),
        show: true,
        right: 0,
        top: 'middle',
        itemHeight: 160,
        itemWidth: 12,
        precision: 3,
        text: [number(most), number(least)],
        textStyle: { color: colour('faint'), fontSize: 11 },
        formatter: number,
    };
}

function isLog(experiment, name) {
    return experiment.parameters.find((one) => one.name === name)?.log ?? false;
}

/** The words of a hyperparameter, if it has some. */
function listed(experiment, name) {
    const one = experiment.parameters.find((parameter) => parameter.name === name);
    return one?.kind === 'words' ? one.values : null;
}

function describe(points, index, metrics) {
    const parameters = points.parameters.map(
        (name, column) => `${words(name)} ${number(points.values[column][index])}`,
    );
    const results = metrics.map((metric, column) => `${words(metric)} ${number(points.objectives[column][index])}`);
    return [`t${points.numbers[index]} (${points.states[index]})`, ...results, ...parameters].join('\n');
}

function rows(points, metrics) {
    return {
        titles: ['trial', ...metrics.map(words), ...points.parameters.map(words)],
        rows: points.numbers.map((trial, index) => [
            `t${trial}`,
            ...points.objectives.map((column) => number(column[index])),
            ...points.values.map((column) => number(column[index])),
        ]),
    };
}

const metricsOf = (experiment) => experiment.objectives.map((one) => one.metric);

function go(id, trial) {
    if (trial)
        document.dispatchEvent(new CustomEvent('go', { detail: `/experiments/${id}/trials/${trial}` }));
}

/** The axis of a hyperparameter: as far as it was searched, or the values that there are to choose from. */
function scale(experiment, name, column) {
    const one = experiment.parameters.find((parameter) => parameter.name === name);
    if (['values', 'words'].includes(one?.kind) && one.values.length)
        return { type: 'category', data: one.values.map(number), axisTick: { show: false } };
    const [least, most] = extent([...column, one?.min, one?.max]);
    const isLogarithmic = isLog(experiment, name);
    const axisLabel = isLogarithmic ? { formatter: power } : {};
    return { type: isLogarithmic ? 'log' : 'value', min: least, max: most, axisLabel };
}

export function parallel(id) {
    const chart = picture('Parallel coordinates', {
        height: 340,
        wide: 560,
        note:
            'One line for each trial, coloured by its result. ' +
            'Drag along an axis to single out trials, click it to let go.',
        draw: ({ experiment, points }) => {
            if (points.numbers.length < 1) return { empty: 'No results yet.' };
            const metrics = metricsOf(experiment);
            const columns = [...points.values, ...points.objectives];
            const names = [...points.parameters, ...metrics];
            const last = points.parameters.length;
            const axes = names.map((name, dim) => ({
                dim,
                name: words(name),
                ...(dim < last ? scale(experiment, name, points.values[dim]) : { type: 'value', scale: true }),
            }));
            return {
                words:
                    `${points.numbers.length} of ${counted(points.total, 'trial')} over ${names.length} axes. ` +
                    `The best is t${points.numbers[0]}.`,
                table: rows(points, metrics),
                option: {
                    tooltip: tooltip(({ dataIndex }) => describe(points, dataIndex, metrics)),
                    visualMap: {
                        ...shownScale(points.objectives[0], experiment.objectives[0].mode),
                        dimension: last,
                    },
                    parallel: {
                        left: 46,
                        right: 116,
                        top: 40,
                        bottom: 24,
                        parallelAxisDefault: {
                            nameTextStyle: { color: colour('text') },
                            axisLabel: {
                                color: colour('faint'),
                                formatter: (value) => (typeof value === 'string' ? value : number(value)),
                                // Lines run behind it.
                                textBorderColor: colour('card'),
                                textBorderWidth: 3,
                            },
                            axisLine: { lineStyle: { color: colour('faint') } },
                            areaSelectStyle: {
                                width: 16,
                                borderColor: colour('accent'),
                                color: colour('accent'),
                                opacity: 0.25,
                            },
                        },
                    },
                    parallelAxis: axes,
                    series: [
                        {
                            type: 'parallel',
                            smooth: 0.15,
                            progressive: 500,
                            lineStyle: { width: 1.5, opacity: points.numbers.length > 100 ? 0.35 : 0.7 },
                            inactiveOpacity: 0.04,
                            emphasis: { lineStyle: { width: 3, opacity: 1 } },
                            // The best is drawn last, over the others.
                            data: points.numbers.map((_, index) =>
                                columns.map((column, dim) =>
                                    axes[dim].data ? number(column[index]) : (column[index] ?? '-'),
                                ),
                            ),
                        },
                    ],
                },
            };
        },
        onclick: ({ dataIndex }) => go(id, state.points?.numbers[dataIndex]),
    });
    const state = { points: null };
    return {
        element: chart.element,
        dispose: chart.dispose,
        update(data) {
            state.points = data.points;
            return chart.update(data);
        },
    };
}

export function importance() {
    return picture('Importance of hyperparameters', {
        height: 220,
        note: 'Share of the differences between results that each explains, by functional ANOVA over a random forest.',
        draw: (answer) => {
            if (!answer.shares) return { empty: `Importance is not known: ${answer.reason}.` };
            const shares = [...answer.shares].reverse();
            return {
                note: `Of ${counted(answer.num_results, 'result')} at ${answer.rung}.`,
                words: `${counted(answer.num_results, 'result')} of ${answer.rung}: ${answer.shares
                    .map((one) => `${words(one.name)} ${percent(one.share)}`)
                    .join(', ')}`,
                table: {
                    titles: ['hyperparameter', 'share'],
                    rows: answer.shares.map((one) => [words(one.name), percent(one.share)]),
                },
                option: {
                    tooltip: tooltip(({ name, value }) => `${name}: ${percent(value)}`),
                    grid: { left: 8, right: 48, top: 8, bottom: 34, containLabel: true },
                    xAxis: axis('share of variance', {
                        type: 'value',
                        min: 0,
                        scale: false,
                        axisLabel: labels(percent),
                    }),
                    yAxis: { ...axis('', { type: 'category' }), data: shares.map((one) => words(one.name)) },
                    series: [
                        {
                            type: 'bar',
                            barMaxWidth: 22,
                            data: shares.map((one) => one.share),
                            itemStyle: { color: colour('accent') },
                            label: {
                                show: true,
                                position: 'right',
                                color: colour('text'),
                                formatter: ({ value }) => percent(value),
                            },
                        },
                    ],
                },
            };
        },
    });
}

/** How the search went on: every trial by its number, and the best up to there. */
export function history(id) {
    const state = { shown: [] };
    return picture('Search history', {
        height: 405,
        note: 'A point for each trial that has a result; the line is the best so far.',
        draw: ({ experiment, points }) => {
            const { metric, mode } = experiment.objectives[0];
            const trials = points.numbers
                .map((trial, index) => [trial, points.objectives[0][index], points.states[index]])
                .filter(([, value]) => Number.isFinite(value))
                .sort(([a], [b]) => a - b);
            if (!trials.length) return { empty: 'No results yet.' };
            state.shown = trials.map(([trial]) => trial);
            const better = mode === 'min' ? Math.min : Math.max;
            let best = trials[0][1];
            const line = trials.map(([trial, value]) => {
                best = better(best, value);
                return [trial, best];
            });
            const lastGain = line.find(([, value]) => value === best)[0];
            return {
                words:
                    `${words(metric)} of ${trials.length} of ${counted(points.total, 'trial')}. ` +
                    `The best, ${number(best)}, since trial ${lastGain}.`,
                table: {
                    titles: ['trial', words(metric), 'best so far', 'trial is'],
                    rows: trials.map(([trial, value, word], index) => [
                        `t${trial}`,
                        number(value),
                        number(line[index][1]),
                        word,
                    ]),
                },
                option: {
                    tooltip: tooltip(({ dataIndex }) => {
                        const [trial, own, word] = trials[dataIndex];
                        return `t${trial} (${word}): ${number(own)}\nbest so far ${number(line[dataIndex][1])}`;
                    }),
                    grid: { left: 12, right: 16, top: 30, bottom: 34, containLabel: true },
                    xAxis: axis('trial', { type: 'value', minInterval: 1, max: 'dataMax', axisLabel: labels() }),
                    yAxis: vertical(words(metric), {
                        type: 'value',
                        ...bounds(metric),
                        axisLabel: labels(number),
                    }),
                    series: [
                        {
                            type: 'scatter',
                            symbolSize: trials.length > 100 ? 5 : 8,
                            itemStyle: { color: mark(0), opacity: 0.7 },
                            data: trials.map(([trial, value]) => [trial, value]),
                        },
                        {
                            type: 'line',
                            step: 'end',
                            showSymbol: false,
                            lineStyle: { width: 2.2 },
                            color: mark(1),
                            z: 1,
                            data: line,
                        },
                    ],
                },
            };
        },
        onclick: ({ dataIndex }) => go(id, state.shown[dataIndex]),
    });
}

/** Cells of the plane to either side. */
const CELLS = 26;

/** The objective between trials: the mean of all, those that are near weighing most (Shepard, fourth power). */
function surface(xs, ys, zs, isLogX, isLogY) {
    const place = (values, isLogarithmic) => {
        const mapped = values.map((value) => (isLogarithmic ? Math.log(value) : value));
        const [min, max] = extent(mapped);
        const span = max - min || 1;
        const edge = (index) => {
            const at = min + (span * index) / CELLS;
            return isLogarithmic ? Math.exp(at) : at;
        };
        return { unit: mapped.map((value) => (value - min) / span), edge };
    };
    const x = place(xs, isLogX);
    const y = place(ys, isLogY);
    const cells = [];
    for (let column = 0; column < CELLS; column += 1) {
        for (let row = 0; row < CELLS; row += 1) {
            let sum = 0;
            let weight = 0;
            zs.forEach((z, index) => {
                const dx = x.unit[index] - (column + 0.5) / CELLS;
                const dy = y.unit[index] - (row + 0.5) / CELLS;
                const near = 1 / (dx * dx + dy * dy + 1e-4) ** 2;
                sum += z * near;
                weight += near;
            });
            cells.push([x.edge(column), y.edge(row), sum / weight, x.edge(column + 1), y.edge(row + 1)]);
        }
    }
    return cells;
}

function cell(params, api) {
    const [left, bottom] = api.coord([api.value(0), api.value(1)]);
    const [right, top] = api.coord([api.value(3), api.value(4)]);
    return {
        type: 'rect',
        shape: { x: left, y: top, width: right - left + 0.5, height: bottom - top + 0.5 },
        style: { fill: api.visual('color') },
    };
}

export function plane(id) {
    const chosen = { x: '', y: '', kind: 'points' };
    const state = { data: null };
    const tools = h('div', { class: 'fields' });
    const chart = picture('Any two against each other', {
        height: 360,
        tools,
        note: 'Coloured by the result. The contour is interpolated between trials, near ones weighing most.',
        onclick: ({ dataIndex, seriesName }) => {
            if (seriesName === 'trials') go(id, state.shown?.[dataIndex]);
        },
        draw: ({ experiment, points }) => drawPlane(experiment, points, chosen, state),
    });

    function fields({ experiment, points, shares }) {
        const metrics = metricsOf(experiment);
        const names = [...points.parameters, ...metrics].map((name) => [name, words(name)]);
        // What makes the difference is what one wants to see.
        chosen.x ||= shares?.[0]?.name ?? points.parameters[0] ?? metrics[0];
        chosen.y ||= metrics[0];
        const set = (key) => (value) => {
            chosen[key] = value;
            chart.redraw();
        };
        tools.replaceChildren(
            select('across', names, chosen.x, set('x')),
            select('up', names, chosen.y, set('y')),
            select(
                'as',
                [
                    ['points', 'points'],
                    ['contour', 'contour'],
                ],
                chosen.kind,
                set('kind'),
            ),
        );
    }

    return {
        element: chart.element,
        dispose: chart.dispose,
        update(data) {
            state.data = data;
            if (!tools.childElementCount) fields(data);
            return chart.update(data);
        },
    };
}

function drawPlane(experiment, points, chosen, state) {
    const metrics = metricsOf(experiment);
    const column = (name) => {
        const place = points.parameters.indexOf(name);
        return place >= 0 ? points.values[place] : (points.objectives[metrics.indexOf(name)] ?? []);
    };
    const [xs, ys, zs] = [column(chosen.x), column(chosen.y), points.objectives[0]];
    const whole = points.numbers
        .map((_, index) => index)
        .filter((index) =>
            [xs[index], ys[index], zs[index]].every((value) => value !== null && value !== undefined),
        );
    state.shown = whole.map((index) => points.numbers[index]);
    if (!whole.length) return { empty: 'No trial has both.' };
    const logX = isLog(experiment, chosen.x);
    const logY = isLog(experiment, chosen.y);
    const pick = (values) => whole.map((index) => values[index]);
    // Nothing lies between two words.
    const hasWords = [chosen.x, chosen.y].some((name) => listed(experiment, name));
    const isContour = chosen.kind === 'contour' && whole.length >= 3 && !hasWords;
    const cells = isContour ? surface(pick(xs), pick(ys), pick(zs), logX, logY) : [];
    const data = whole.map((index) => [xs[index], ys[index], zs[index]]);
    const along = (name, isLogarithmic) => {
        const choices = listed(experiment, name);
        if (choices) return { type: 'category', data: choices, axisLabel: labels(), boundaryGap: true };
        return {
            type: isLogarithmic ? 'log' : 'value',
            axisLabel: labels(isLogarithmic ? power : number),
        };
    };
    return {
        words: `${counted(whole.length, 'trial')}, ${words(chosen.x)} across and ${words(chosen.y)} up.`,
        table: {
            titles: ['trial', words(chosen.x), words(chosen.y), metrics[0]],
            rows: whole.map((index) => [
                `t${points.numbers[index]}`,
                number(xs[index]),
                number(ys[index]),
                number(zs[index]),
            ]),
        },
        option: {
            tooltip: tooltip(({ dataIndex, seriesName, value }) =>
                seriesName === 'trials'
                    ? describe(points, whole[dataIndex], metrics)
                    : `about ${metrics[0]} ${number(value[2])}`,
            ),
            grid: { left: 12, right: 70, top: 30, bottom: 34, containLabel: true },
            visualMap: {
                ...shownScale(zs, experiment.objectives[0].mode),
                dimension: 2,
                seriesIndex: isContour ? [1] : [0],
            },
            xAxis: axis(words(chosen.x), along(chosen.x, logX)),
            yAxis: vertical(words(chosen.y), along(chosen.y, logY)),
            series: [
                {
                    name: 'trials',
                    type: 'scatter',
                    symbolSize: isContour ? 7 : 11,
                    data,
                    z: 3,
                    itemStyle: isContour
                        ? { color: colour('text'), borderColor: colour('card'), borderWidth: 1 }
                        : { borderColor: colour('faint'), borderWidth: 0.5 },
                },
                ...(isContour
                    ? [
                          {
                              name: 'between',
                              type: 'custom',
                              renderItem: cell,
                              data: cells,
                              encode: { x: [0, 3], y: [1, 4] },
                              z: 1,
                          },
                      ]
                    : []),
            ],
        },
    };
}
