// One trial: what it measured, what it reached, what it said, and why it is where it is.

import { trialActions } from './actions.js';
import { get, stream } from './api.js';
import { axis, heat, labels, legend, mark, picture, tooltip, vertical } from './charts.js';
import { badge, empty, experimentLink, fill, h, section, tile, tiles, trialLink } from './elements.js';
import { ago, binary, bytes, counted, duration, number, percent, score, whole, withUnit, words } from './format.js';
import { table } from './table.js';
import { colour } from './theme.js';

/** Which curves share a picture, by how their names begin. */
const GROUPS = [
    ['Loss', (name) => name.endsWith('loss')],
    ['Precision and recall, validation', (name) => /^validation_.*(precision|recall)$/.test(name)],
    ['Validation scores', (name) => name.startsWith('validation_')],
    ['Learning rate', (name) => name.startsWith('learning_rate')],
    ['Gradient norm', (name) => name.startsWith('grad')],
    ['Examples per second', (name) => name === 'examples_per_second'],
    ['Tokens per second', (name) => name === 'tokens_per_second'],
    ['Processor cores at work', (name) => name === 'cpu_share'],
    ['Shares of padding and of the GPU', (name) => name.endsWith('_share')],
    ['Memory', (name) => name.endsWith('_bytes')],
    ['Other', () => true],
];
/** Lines of a log that are kept on the page. */
const LINES_MAX = 1000;
/** While a trial runs it is asked so often what it trains with: ranks say it one after the other, and once each. */
const EQUIPMENT_MS = 30_000;

export function trial(id, place, session) {
    const path = `/experiments/${id}/trials/${place}`;
    const title = h('div', { class: 'head' });
    const facts = h('div');
    const why = h('div');
    const results = h('div');
    const report = h('div');
    const saved = h('div');
    const tools = h('div', { class: 'wide', hidden: true });
    const asked = { of: '', at: 0, isOpen: false };
    const lines = log(path);
    const pictures = new Map();
    const grid = h('div', { class: 'grid pairs' });
    const matrix = picture('Confusion matrix', {
        height: 300,
        note: 'Examples, and their share of the row: of all that are truly of its class.',
        draw: drawMatrix,
    });
    const element = h(
        'div',
        { class: 'page' },
        title,
        facts,
        why,
        h('h2', { class: 'above' }, 'Curves'),
        grid,
        h('h2', { class: 'above' }, 'Results'),
        h(
            'div',
            { class: 'grid' },
            matrix.element,
            report,
            h('div', { class: 'wide' }, results),
            h('div', { class: 'wide' }, saved),
            tools,
        ),
        lines.element,
    );

    async function refresh() {
        const [answer, measured, kept] = await Promise.all([get(path), curves(), get(`${path}/checkpoints`)]);
        fill(
            title,
            h(
                'div',
                null,
                h('p', { class: 'crumbs' }, experimentLink(id), ' / '),
                h('h1', null, `t${answer.number}`, ' ', badge(answer.held ? 'held' : answer.state)),
                answer.reason ? h('p', { class: 'note' }, answer.reason) : null,
                neighbours(id, answer),
            ),
            trialActions(answer, session),
        );
        fill(facts, figures(answer));
        fill(why, reasons(id, answer));
        fill(results, rungs(answer));
        fill(report, classes(answer));
        fill(saved, checkpoints(kept, answer.now_ms));
        await matrix.update(answer);
        await draw(measured);
        await equip(answer);
    }

    /**
     * What runs that have ended trained with does not change any more, and is asked for once, unless the store did not
     * answer. It comes last: the page does not wait for it.
     */
    async function equip({ attempts, state }) {
        const of = `${attempts} ${state}`;
        if (asked.of === of && !(asked.isOpen && Date.now() - asked.at >= EQUIPMENT_MS)) return;
        const answer = await get(`${path}/equipment`);
        Object.assign(asked, { of, at: Date.now(), isOpen: state === 'running' || answer.problem !== '' });
        fill(tools, equipment(answer));
        tools.hidden = !tools.childElementCount;
    }

    /** Curves that cannot be read must not keep the rest of the page away. */
    async function curves() {
        try {
            return await get(`${path}/curves?points=300`);
        } catch (error) {
            return { curves: [], problem: error.message };
        }
    }

    async function draw({ curves: all, problem }) {
        if (!all.length && !pictures.size) {
            fill(grid, h('div', { class: 'wide card' }, empty(problem ?? 'Nothing is measured yet.')));
            return;
        }
        if (!pictures.size) grid.replaceChildren();
        const left = [...all];
        for (const [name, fits] of GROUPS) {
            const own = left.filter((curve) => fits(curve.name));
            own.forEach((curve) => left.splice(left.indexOf(curve), 1));
            if (!own.length) continue;
            if (!pictures.has(name)) {
                const made = picture(name, {
                    height: 230,
                    level: 'h3',
                    draw: (data) => drawGroup(name, data),
                });
                pictures.set(name, made);
                grid.append(made.element);
            }
            await pictures.get(name).update(own);
        }
    }

    return {
        title: `${id}/t${place}`,
        element,
        refresh,
        dispose() {
            lines.dispose();
            matrix.dispose();
            pictures.forEach((one) => one.dispose());
        },
    };
}

function neighbours(id, answer) {
    const places = [answer.number - 1, answer.number + 1].filter(
        (one) => one >= 1 && one <= answer.num_trials,
    );
    return h(
        'p',
        { class: 'note' },
        'Next to it: ',
        places.map((one) => [trialLink(id, one), ' ']),
    );
}

function figures(answer) {
    const parameters = Object.entries(answer.parameters).map(([name, value]) =>
        tile(words(name), number(value)),
    );
    return tiles(
        ...answer.goals.map((one, index) =>
            tile(`${words(one.metric)} (${one.mode})`, [
                score(answer.objectives[index]),
                index === 0 && answer.rank
                    ? h('small', null, `place ${answer.rank} of ${answer.num_trials}${bestStep(answer)}`)
                    : null,
            ]),
        ),
        tile('Step', [
            number(answer.step),
            answer.target_step > answer.step ? h('small', null, `to ${number(answer.target_step)}`) : null,
        ]),
        ...parameters,
        tile('Runs', [number(answer.attempts), h('small', null, counted(answer.restarts, 'restart'))]),
        tile('Slot time', duration(answer.used_seconds)),
        answer.state === 'running'
            ? tile('Speed', [number(answer.examples_per_second), h('small', null, 'examples/s')])
            : null,
    );
}

/** Where its best result was: a trial may have gone on and become worse. */
function bestStep({ validation, step }) {
    return validation && validation.step !== step ? `, at step ${number(validation.step)}` : '';
}

function reasons(id, answer) {
    const descent = answer.lineage.map((one) =>
        h(
            'li',
            null,
            `at rung ${one.rung} it went on from step ${one.parent_step} of `,
            trialLink(id, one.parent),
            ', until then with ',
            Object.entries(one.before)
                .map(([name, value]) => `${words(name)} ${number(value)}`)
                .join(', '),
        ),
    );
    const heirs = answer.descendants.map((one) => [trialLink(id, one), ' ']);
    return section(
        'Why it is where it is',
        null,
        h(
            'ul',
            { class: 'why' },
            answer.why.map((line) => h('li', null, line)),
            answer.ranks.map((line) => h('li', null, line)),
        ),
        descent.length ? [h('h3', null, 'Lineage'), h('ul', { class: 'why' }, descent)] : null,
        heirs.length ? h('p', null, 'Went on from it: ', heirs) : null,
    );
}

function rungs(answer) {
    const names = [...new Set(answer.results.flatMap((one) => Object.keys(one.scores)))];
    const made = table(
        'Results at rungs',
        [
            { title: 'Rung', head: true, cell: (row) => `${row.rung}: ${row.budget}` },
            { title: 'Step', number: true, cell: (row) => number(row.step) },
            ...names.map((name) => ({
                title: words(name),
                number: true,
                cell: (row) => score(row.scores[name]),
            })),
        ],
        { empty: 'No rung reached yet.' },
    );
    made.update(answer.results);
    return section('Results at rungs, validation split', null, made.element);
}

function classes(answer) {
    const one = (name, evaluation) => {
        if (!evaluation?.classes.length) return null;
        const made = table(`Classification report, ${name}`, [
            { title: 'Class', head: true, cell: (row) => row.label },
            ...['precision', 'recall', 'f1'].map((key) => ({
                title: words(key),
                number: true,
                cell: (row) => row[key].toFixed(3),
            })),
            { title: 'Examples', number: true, cell: (row) => whole(row.support) },
        ]);
        made.update(evaluation.classes);
        const totals = ['accuracy', 'macro_f1', 'weighted_f1', 'mcc', 'auc'].filter(
            (key) => key in evaluation.scores,
        );
        return [
            h('h3', null, `${name}, step ${evaluation.step}`),
            made.element,
            h(
                'p',
                { class: 'note' },
                totals.map((key) => `${words(key)} ${evaluation.scores[key].toFixed(3)}`).join(', '),
            ),
        ];
    };
    const shown = [one('Test split', answer.test), one('Validation split', answer.validation)].filter(
        Boolean,
    );
    return section(
        'Classification report',
        null,
        shown.length ? shown : empty('No classes were scored yet.'),
    );
}

function checkpoints(answer, now) {
    const made = table(
        'Checkpoints',
        [
            { title: 'Checkpoint', head: true, cell: (row) => h('code', null, row.name) },
            { title: 'Step', number: true, cell: (row) => number(row.step) },
            { title: 'Size', number: true, cell: (row) => bytes(row.bytes) },
            {
                title: 'Written',
                cell: (row) => (row.written_at_ms === null ? '-' : ago(row.written_at_ms, now)),
            },
            { title: 'From', cell: (row) => row.parent ?? 'the beginning' },
            { title: 'Result', cell: (row) => (row.is_best ? badge('best') : '-') },
        ],
        { empty: 'No checkpoints are kept.' },
    );
    made.update(answer.checkpoints);
    return section(
        'Checkpoints',
        null,
        answer.problem ? h('p', { class: 'notice' }, answer.problem) : null,
        made.element,
    );
}

/** What it was trained with, a row for each kind of worker; nothing for trials of builds that kept nothing. */
function equipment({ workers, problem }) {
    if (!workers.length && !problem) return null;
    const made = table('Trained with', [
        { title: 'Workers', head: true, cell: (row) => `${row.num_workers} on ${row.hosts.join(', ')}` },
        { title: 'Processor', cell: (row) => `${row.processor}, ${counted(row.num_processors, 'processor')}` },
        { title: 'Threads', number: true, cell: (row) => number(row.threads) },
        { title: 'Memory', number: true, cell: (row) => binary(row.memory_bytes) },
        {
            title: 'GPU',
            cell: ({ gpu }) =>
                gpu ? `${gpu.name}, ${binary(gpu.memory_bytes)}, driver ${gpu.driver}` : '-',
        },
        { title: 'libtorch', cell: (row) => row.libtorch },
        { title: 'Muster', cell: (row) => row.muster },
    ]);
    made.update(workers);
    return section(
        'Trained with',
        null,
        problem ? h('p', { class: 'notice' }, problem) : null,
        workers.length ? made.element : null,
        h('p', { class: 'note' }, 'Processors and memory are those of the machine, threads and GPU those of a slot.'),
    );
}

/** A line of a log: when, and what was said; the page says of which trial. */
function short(line) {
    const found = /^\S+ {2}\S+ {2}(\d{4}-\S+Z) +(\w+) (?:run\{([^}]*)\}: )?(.*)$/.exec(line);
    if (!found) return line;
    const [, at, level, span, said] = found;
    const rank = /rank=([1-9]\d*)/.exec(span ?? '');
    const time = new Date(at).toLocaleTimeString('en-GB');
    return `${time} ${level.padEnd(5)} ${rank ? `rank ${rank[1]}: ` : ''}${said}`;
}

/** The log, as it is written. */
function log(path) {
    const all = [];
    const view = h('pre', { class: 'code log', tabindex: '0', role: 'log', 'aria-label': 'Log lines' });
    const follow = h('input', { type: 'checkbox', checked: true });
    const note = h('p', { class: 'note' }, 'The newest lines, shortened; `muster logs` prints them whole.');
    const element = section(
        'Log',
        null,
        h('label', { class: 'check' }, follow, ' keep the newest in view'),
        view,
        note,
    );
    let source = null;

    function add(lines) {
        all.push(...lines.map(short));
        if (all.length > LINES_MAX) all.splice(0, all.length - LINES_MAX);
        view.textContent = all.join('\n');
        if (follow.checked) view.scrollTop = view.scrollHeight;
    }

    async function begin() {
        view.textContent = 'reading';
        try {
            const answer = await get(`${path}/logs`);
            view.textContent = '';
            add(answer.lines);
            if (!answer.lines.length) view.textContent = 'Nothing was said yet.';
            source = stream(`${path}/logs/live?from=${answer.next}`, 'lines', add);
        } catch (error) {
            view.textContent = error.message;
        }
    }

    let isOver = false;
    begin().then(() => {
        if (isOver) source?.close();
    });
    return {
        element,
        dispose() {
            isOver = true;
            source?.close();
        },
    };
}

function drawGroup(name, curves) {
    const unit = curves[0].unit;
    const isLog = name === 'Learning rate' && curves.length > 1;
    const format = name === 'Memory' ? bytes : number;
    return {
        words: curves
            .map(
                (curve) =>
                    `${words(curve.name)} from ${format(curve.means[0])} to ${format(curve.means.at(-1))}`,
            )
            .join(', '),
        table: {
            titles: ['step', ...curves.map((curve) => withUnit(curve.name, curve.unit))],
            rows: together(curves, format),
        },
        option: {
            tooltip: { ...tooltip(undefined, 'axis'), valueFormatter: format },
            // The heading names a line that is alone.
            legend: { ...legend(), show: curves.length > 1 },
            grid: { left: 12, right: 20, top: curves.length > 1 ? 36 : 26, bottom: 34, containLabel: true },
            xAxis: axis('optimizer steps', { type: 'value', min: 0, max: 'dataMax' }),
            yAxis: vertical(unit === '1' ? '' : unit, {
                type: isLog ? 'log' : 'value',
                axisLabel: labels(name === 'Memory' ? (value) => bytes(value, 4) : format),
            }),
            series: curves.map((curve, index) => ({
                name: lineName(name, curve.name),
                type: 'line',
                showSymbol: curve.steps.length < 12,
                symbolSize: 6,
                lineStyle: { width: 2 },
                color: mark(index),
                data: curve.steps.map((step, place) => [step, curve.means[place]]),
            })),
        },
    };
}

/** What a line is called below a heading that says what all of them begin with. */
function lineName(heading, name) {
    if (/validation/i.test(heading)) return words(name.replace('validation_', ''));
    return words(heading === 'Learning rate' ? name.replace('learning_rate_', '') : name);
}

/** Rows of all curves by step. */
function together(curves, format) {
    const steps = [...new Set(curves.flatMap((curve) => curve.steps))].sort((a, b) => a - b);
    const known = curves.map(
        (curve) => new Map(curve.steps.map((step, place) => [step, curve.means[place]])),
    );
    return steps.map((step) => [step, ...known.map((values) => format(values.get(step)))]);
}

function drawMatrix(answer) {
    const evaluation = answer.test ?? answer.validation;
    const split = answer.test ? 'test' : 'validation';
    if (!evaluation?.confusion.length) return { empty: 'Nothing with classes was scored yet.' };
    const { labels, confusion } = evaluation;
    const sums = confusion.map((row) => row.reduce((sum, count) => sum + count, 0));
    const cells = confusion.flatMap((row, truth) =>
        row.map((count, guess) => [guess, truth, count / Math.max(1, sums[truth]), count]),
    );
    const isSmall = labels.length <= 12;
    const names = { type: 'category', data: labels, splitLine: { show: false } };
    return {
        words:
            `${split} split. ` +
            labels
                .map((label, truth) => `${label}: ${confusion[truth][truth]} of ${sums[truth]} right`)
                .join(', '),
        table: {
            titles: ['truth \\ prediction', ...labels],
            rows: confusion.map((row, truth) => [labels[truth], ...row]),
        },
        option: {
            tooltip: tooltip(
                ({ value }) =>
                    `${labels[value[1]]} taken for ${labels[value[0]]}\n${value[3]}, ${percent(value[2])} of its row`,
            ),
            grid: { left: 12, right: 16, top: 30, bottom: 34, containLabel: true },
            xAxis: axis(`prediction, ${split} split`, names),
            yAxis: vertical('truth', { ...names, inverse: true, nameLocation: 'start' }),
            visualMap: { show: false, min: 0, max: 1, dimension: 2, inRange: { color: heat() } },
            series: [
                {
                    type: 'heatmap',
                    data: cells,
                    itemStyle: { borderColor: colour('card'), borderWidth: 1 },
                    label: {
                        show: isSmall,
                        color: colour('text'),
                        lineHeight: 17,
                        formatter: ({ value }) => `${value[3]}\n${percent(value[2])}`,
                    },
                },
            ],
        },
    };
}
