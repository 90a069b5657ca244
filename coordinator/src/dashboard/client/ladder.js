// The ladder of rungs: how many went on, and why the others did not.

import { get } from './api.js';
import { axis, legend, picture, tooltip } from './charts.js';
import { badge, fill, h, trialLink } from './elements.js';
import { counted, number, score, words } from './format.js';
import { table } from './table.js';
import { colour } from './theme.js';

const FATES = [
    ['num_promoted', 'went on', 'good'],
    ['num_waiting', 'wait', 'wait'],
    ['num_stopped', 'stopped', 'stop'],
    ['num_other', 'finished or ended otherwise', 'rest'],
];

function draw({ rungs }) {
    if (!rungs.some((rung) => rung.num_results)) return { empty: 'No trial has reached a rung yet.' };
    const rows = rungs.map((rung) => ({
        ...rung,
        num_other: rung.num_results - rung.num_promoted - rung.num_stopped - rung.num_waiting,
    }));
    const names = rows.map((rung) => `rung ${rung.number}: ${rung.budget}`);
    return {
        words: rows
            .map((rung) => `Rung ${rung.number}: ${counted(rung.num_results, 'result')}, ${rung.num_promoted} went on`)
            .join('. '),
        table: {
            titles: ['rung', 'results', ...FATES.map(([, name]) => name)],
            rows: rows.map((rung, index) => [
                names[index],
                rung.num_results,
                ...FATES.map(([key]) => rung[key]),
            ]),
        },
        option: {
            tooltip: tooltip(undefined, 'axis'),
            legend: { ...legend(), left: 8 },
            grid: { left: 8, right: 24, top: 30, bottom: 34, containLabel: true },
            xAxis: axis('trials', { type: 'value', minInterval: 1, scale: false }),
            yAxis: { ...axis('', { type: 'category' }), data: names },
            series: FATES.map(([key, name, hue]) => ({
                name,
                type: 'bar',
                stack: 'all',
                barMaxWidth: 26,
                itemStyle: { color: colour(hue) },
                label: { show: true, color: colour('on-state'), formatter: ({ value }) => (value ? `${value}` : '') },
                data: rows.map((rung) => rung[key]),
            })),
        },
    };
}

export function ladder(id) {
    const chart = picture('Rung ladder', { draw, height: 210 });
    const list = h('div');
    const details = h(
        'details',
        { class: 'behind' },
        h('summary', null, 'Every result, and what became of the trial'),
        list,
    );
    chart.element.append(details);

    const columns = [
        { title: 'Place', number: true, cell: (row) => number(row.place) },
        { title: 'Trial', head: true, cell: (row) => trialLink(id, row.trial) },
        { title: 'Step', number: true, cell: (row) => number(row.step) },
        { title: 'Result', number: true, cell: (row) => score(row.objective) },
        { title: 'Then', cell: (row) => badge(row.fate) },
        { title: 'Why', cell: (row) => row.reason },
    ];

    function one(rung, metric) {
        const made = table(`Results at rung ${rung.number}`, columns);
        made.update(rung.entries);
        const left = rung.num_results - rung.entries.length;
        return [
            h('h3', null, `Rung ${rung.number}: ${rung.budget}, by ${words(metric)}`),
            made.element,
            left > 0 ? h('p', { class: 'note' }, `${left} more, further behind`) : null,
        ];
    }

    return {
        element: chart.element,
        dispose: chart.dispose,
        async refresh() {
            const answer = await get(`/experiments/${id}/rungs?limit=50`);
            chart.update(answer);
            const reached = answer.rungs.filter((rung) => rung.num_results).reverse();
            fill(
                list,
                reached.map((rung) => one(rung, answer.metric)),
            );
        },
    };
}

/** What early stopping has saved, in figures. */
export function savings(answer, duration) {
    const { saved_share: share, saved_seconds: seconds, num_stopped: stopped, num_ended: ended } = answer;
    if (share === null) return 'nothing has ended yet';
    if (!stopped) return `of all steps; none of ${ended} ended trials was stopped`;
    return `of all steps, about ${duration(seconds)} of slot time; ${stopped} of ${counted(ended, 'trial')} stopped`;
}
