// Which slot did what when.

import { axis, mark, picture, tooltip } from './charts.js';
import { counted, duration, moment } from './format.js';
import { colour } from './theme.js';

/** The last marks are too much like what is no training. */
const TRIAL_MARKS = 10;

function name(span) {
    const what =
        span.trial === null ? span.task : `t${span.trial}${span.task === 'train' ? '' : ` ${span.task}`}`;
    return span.rank ? `${what} rank ${span.rank}` : what;
}

function hue(span) {
    if (span.task !== 'train') return colour('rest');
    return mark(span.trial % TRIAL_MARKS);
}

/** Names of slots without what all of them begin with, which says nothing; the host where there are several. */
function slotNames(slots) {
    const workers = slots.map((slot) => slot.worker);
    let common = workers[0] ?? '';
    for (const worker of workers) while (!worker.startsWith(common)) common = common.slice(0, -1);
    const cut = workers.length > 1 ? common.lastIndexOf('-') + 1 : 0;
    const isOneHost = new Set(slots.map((slot) => slot.host)).size === 1;
    return slots.map((slot) => (isOneHost ? '' : `${slot.host} `) + slot.worker.slice(cut));
}

/** `withExperiment`: of several experiments, each span says which. */
export function timeline(title, withExperiment) {
    function draw(answer) {
        const { slots, spans } = answer;
        const since = `Known since ${moment(answer.since_ms)}.`;
        if (!spans.length) return { empty: `No runs. ${since}` };
        const full = (span) => (withExperiment ? `${span.experiment} ${name(span)}` : name(span));
        const names = slotNames(slots);
        const end = (span) => span.to_ms ?? answer.now_ms;
        const text = ({ dataIndex }) => {
            const span = spans[dataIndex];
            const took = duration((end(span) - span.from_ms) / 1000);
            const slot = slots[span.slot];
            return `${full(span)}, run ${span.run}\n${moment(span.from_ms)}, ${took}\n${slot.host} ${slot.worker}`;
        };
        return {
            words: `${counted(spans.length, 'run')} on ${counted(slots.length, 'slot')}. ${since}`,
            table: {
                titles: ['run', 'slot', 'what', 'from', 'took'],
                rows: spans.map((span) => [
                    span.run,
                    names[span.slot],
                    full(span),
                    moment(span.from_ms),
                    duration((end(span) - span.from_ms) / 1000),
                ]),
            },
            option: {
                tooltip: tooltip(text),
                grid: { left: 8, right: 16, top: 8, bottom: 60, containLabel: true },
                dataZoom: [
                    { type: 'inside', filterMode: 'weakFilter', zoomOnMouseWheel: 'ctrl' },
                    {
                        type: 'slider',
                        height: 18,
                        bottom: 8,
                        filterMode: 'weakFilter',
                        showDetail: false,
                        borderColor: colour('line'),
                    },
                ],
                xAxis: axis('', { type: 'time' }),
                yAxis: {
                    ...axis('', { type: 'category' }),
                    data: names,
                    axisLabel: { color: colour('faint'), width: 130, overflow: 'truncate' },
                },
                series: [
                    {
                        type: 'custom',
                        encode: { x: [1, 2], y: 0 },
                        data: spans.map((span) => [span.slot, span.from_ms, end(span)]),
                        renderItem: (params, api) => bar(params, api, spans[params.dataIndex]),
                    },
                ],
            },
        };
    }
    return picture(title, {
        draw,
        height: 240,
        note:
            'Each bar is a run on a slot; grey ones prepare data or finish. ' +
            'The strip below zooms, as do Ctrl and the wheel.',
    });
}

function bar(params, api, span) {
    const from = api.coord([api.value(1), api.value(0)]);
    const to = api.coord([api.value(2), api.value(0)]);
    const height = Math.min(26, api.size([0, 1])[1] * 0.7);
    const { x, width } = params.coordSys;
    const left = Math.max(from[0], x);
    const right = Math.min(Math.max(to[0], from[0] + 2), x + width);
    if (right <= left) return null;
    const shape = { x: left, y: from[1] - height / 2, width: right - left, height, r: 2 };
    // Half a name says nothing.
    const text = right - left > 6 * name(span).length + 6 ? name(span) : '';
    return {
        type: 'rect',
        shape,
        style: { fill: hue(span), opacity: span.to_ms === null ? 0.75 : 1, stroke: colour('card'), lineWidth: 1 },
        textContent: {
            style: {
                text,
                fill: colour(span.task === 'train' ? 'on-mark' : 'on-state'),
                fontSize: 11,
            },
        },
        textConfig: { position: 'inside' },
    };
}
