// Draws the pictures of a report: one for each `.canvas`, told by its `data-picture`, of the JSON in the page. What a
// picture shows stands beside it as a sentence and behind it as a table.

const report = JSON.parse(document.getElementById('data').textContent);
const echarts = globalThis.echarts;
const dark = matchMedia('(prefers-color-scheme: dark)');
const root = document.documentElement;

/** An element that nobody sees, which says what a colour of the style sheet is. */
const probe = document.createElement('span');
probe.hidden = true;
document.body.append(probe);
/** Colours that were asked for since all was last drawn. */
const known = new Map();

/** Lines that stand out, of the trials. */
const FRONT = 6;

function colour(name) {
    if (!known.has(name)) {
        probe.style.color = `var(--${name})`;
        known.set(name, getComputedStyle(probe).color);
    }
    return known.get(name);
}

/** Marks that are told apart. */
const MARKS = 12;

function mark(index) {
    return colour(`mark-${index % MARKS}`);
}

/** Four significant digits. */
function number(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return '-';
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e7) return String(value);
    if (size >= 1e5 || size < 1e-3) return value.toExponential(2);
    return String(Number(value.toPrecision(4)));
}

function axis(name, more = {}) {
    const line = { lineStyle: { color: colour('line') } };
    return {
        type: 'value',
        name,
        nameLocation: 'middle',
        nameGap: 28,
        scale: true,
        nameTextStyle: { color: colour('faint') },
        axisLabel: { color: colour('faint'), hideOverlap: true, formatter: number },
        axisLine: line,
        splitLine: line,
        ...more,
    };
}

function upright(name, more = {}) {
    return axis(name, {
        nameLocation: 'end',
        nameGap: 10,
        nameTextStyle: { color: colour('faint'), align: 'left' },
        ...more,
    });
}

function share(name, more = {}) {
    return { min: 0, max: 1, name, ...more };
}

/** Tooltips are drawn, not made of markup, so that no text becomes any. */
function tooltip(formatter, trigger = 'item') {
    return {
        trigger,
        formatter,
        renderMode: 'richText',
        confine: true,
        backgroundColor: colour('card'),
        borderColor: colour('line'),
        textStyle: { color: colour('text'), fontSize: 12 },
    };
}

function legend(more = {}) {
    return {
        type: 'plain',
        top: 0,
        right: 8,
        itemWidth: 16,
        itemHeight: 8,
        textStyle: { color: colour('faint') },
        ...more,
    };
}

function learning(place) {
    const { metric, lines } = report.learning[place];
    const isAlone = lines.length === 1;
    const series = lines.map((line, index) => {
        const isFront = index < FRONT;
        return {
            name: `t${line.trial}`,
            type: 'line',
            showSymbol: line.steps.length < 12,
            symbolSize: isFront ? 6 : 3,
            z: isFront ? 10 - index : 1,
            lineStyle: isFront ? { width: 2.2 } : { width: 1, opacity: 0.4, color: colour('faint') },
            itemStyle: {
                color: isFront ? mark(index) : colour('faint'),
                opacity: isFront ? 1 : 0.4,
            },
            endLabel: { show: isFront && !isAlone, formatter: '{a}', color: mark(index) },
            data: line.steps.map((step, at) => [step, line.values[at]]),
        };
    });
    return {
        tooltip: tooltip(({ seriesName, value }) => `${seriesName}\nstep ${value[0]}: ${number(value[1])}`),
        grid: { left: 12, right: isAlone ? 18 : 44, top: 30, bottom: 34, containLabel: true },
        xAxis: axis('optimizer steps', { min: 0, max: 'dataMax' }),
        yAxis: upright(metric.replaceAll('_', ' ')),
        series,
    };
}

function importance() {
    const shares = [...report.importance.shares].reverse();
    return {
        tooltip: tooltip(({ name, value }) => `${name}: ${(100 * value).toFixed(1)} %`),
        grid: { left: 12, right: 24, top: 10, bottom: 34, containLabel: true },
        xAxis: axis('share of the variance that single hyperparameters explain', { min: 0, scale: false }),
        yAxis: {
            type: 'category',
            data: shares.map(({ parameter }) => parameter.replaceAll('_', ' ')),
            axisLabel: { color: colour('text') },
            axisLine: { lineStyle: { color: colour('line') } },
        },
        series: [
            { type: 'bar', barMaxWidth: 26, itemStyle: { color: mark(0) }, data: shares.map((one) => one.share) },
        ],
    };
}

function confusion() {
    const { labels, confusion: counts } = report.test ?? report.validation;
    const sums = counts.map((row) => row.reduce((sum, count) => sum + count, 0));
    const cells = counts.flatMap((row, truth) =>
        row.map((count, guess) => [guess, truth, sums[truth] ? count / sums[truth] : 0, count]),
    );
    const categories = (name, more) => ({
        type: 'category',
        data: labels,
        name,
        nameLocation: 'middle',
        nameGap: 30,
        nameTextStyle: { color: colour('faint') },
        axisLabel: { color: colour('text'), hideOverlap: true, width: 90, overflow: 'truncate' },
        axisLine: { show: false },
        axisTick: { show: false },
        ...more,
    });
    const isNamed = labels.length <= 12;
    return {
        tooltip: tooltip(
            ({ value: [guess, truth, part, count] }) =>
                `${labels[truth]} taken for ${labels[guess]}\n${count}, ${(100 * part).toFixed(1)} % of the class`,
        ),
        grid: { left: 34, right: 12, top: 10, bottom: 40, containLabel: true },
        xAxis: categories('prediction', {}),
        yAxis: categories('truth', { inverse: true, nameGap: 8, nameLocation: 'end' }),
        visualMap: {
            show: false,
            min: 0,
            max: 1,
            dimension: 2,
            inRange: { color: [0, 1, 2].map((step) => colour(`heat-${step}`)) },
        },
        series: [
            {
                type: 'heatmap',
                data: cells,
                itemStyle: { borderColor: colour('card'), borderWidth: 2 },
                label: {
                    show: isNamed,
                    formatter: ({ value }) => String(value[3]),
                    color: colour('text'),
                },
            },
        ],
    };
}

function areas(points, value, names, chance) {
    const { classes } = report.behavior;
    const lines = classes.map((one, index) => ({
        name: `${one.label} (${number(one[value])})`,
        type: 'line',
        showSymbol: false,
        step: points === 'roc' ? false : 'start',
        lineStyle: { width: 2 },
        itemStyle: { color: mark(index) },
        data: one[points],
    }));
    return {
        tooltip: tooltip(
            (all) =>
                all
                    .filter((one) => one.seriesName !== 'chance')
                    .map((one) => `${one.seriesName}: ${number(one.value[0])}, ${number(one.value[1])}`)
                    .join('\n'),
            'axis',
        ),
        legend: legend({ show: classes.length > 1, type: 'plain', bottom: 0, top: 'auto', left: 'center' }),
        grid: { left: 12, right: 22, top: 30, bottom: classes.length > 1 ? 74 : 34, containLabel: true },
        xAxis: axis(names[0], share(names[0])),
        yAxis: upright(names[1], share(names[1])),
        series: [
            ...lines,
            {
                name: 'chance',
                type: 'line',
                showSymbol: false,
                silent: true,
                lineStyle: { width: 1, type: 'dashed', color: colour('faint') },
                itemStyle: { color: colour('faint') },
                data: chance,
            },
        ],
    };
}

function roc() {
    return areas('roc', 'auc', ['false positive rate', 'true positive rate'], [[0, 0], [1, 1]]);
}

function precisionRecall() {
    const { classes } = report.behavior;
    const chance = classes.length === 1 ? classes[0].prevalence : 0;
    const line = classes.length === 1 ? [[0, chance], [1, chance]] : [];
    return areas('precision_recall', 'average_precision', ['recall', 'precision'], line);
}

function calibration() {
    const { bins } = report.behavior.calibration;
    const most = Math.max(...bins.map((bin) => bin.count));
    return {
        tooltip: tooltip(({ data, seriesName }) =>
            seriesName === 'right'
                ? `confidence ${number(data.value[0])}\nright ${number(data.value[1])}\n${data.count} predictions`
                : 'as sure as right',
        ),
        legend: legend({ data: ['right', 'as sure as right'] }),
        grid: { left: 12, right: 22, top: 36, bottom: 34, containLabel: true },
        xAxis: axis('mean confidence', share('mean confidence')),
        yAxis: upright('share right', share('share right')),
        series: [
            {
                name: 'right',
                type: 'line',
                symbol: 'circle',
                symbolSize: (_value, { data }) => 6 + 18 * Math.sqrt(data.count / most),
                itemStyle: { color: mark(0) },
                lineStyle: { width: 2 },
                data: bins.map((bin) => ({ value: [bin.confidence, bin.accuracy], count: bin.count })),
            },
            {
                name: 'as sure as right',
                type: 'line',
                showSymbol: false,
                lineStyle: { width: 1, type: 'dashed', color: colour('faint') },
                itemStyle: { color: colour('faint') },
                data: [[0, 0], [1, 1]],
            },
        ],
    };
}

function lengths() {
    const { lengths: bins } = report.behavior;
    const name = ({ shortest, longest }) => (shortest === longest ? `${shortest}` : `${shortest}–${longest}`);
    const whiskers = {
        type: 'custom',
        silent: true,
        z: 5,
        renderItem: (_params, api) => {
            const [x, low] = api.coord([api.value(0), api.value(1)]);
            const [, high] = api.coord([api.value(0), api.value(2)]);
            const style = { stroke: colour('text'), lineWidth: 1.2 };
            const line = (x1, y1, x2, y2) => ({ type: 'line', shape: { x1, y1, x2, y2 }, style });
            return {
                type: 'group',
                children: [line(x, low, x, high), line(x - 4, low, x + 4, low), line(x - 4, high, x + 4, high)],
            };
        },
        data: bins.map((bin, index) => [index, ...bin.interval_95]),
    };
    return {
        tooltip: tooltip(
            ({ dataIndex }) =>
                `${name(bins[dataIndex])} tokens\n${bins[dataIndex].count} examples\n` +
                `${number(bins[dataIndex].accuracy)} right`,
        ),
        grid: { left: 12, right: 12, top: 30, bottom: 34, containLabel: true },
        xAxis: {
            ...axis('tokens'),
            type: 'category',
            data: bins.map(name),
            axisLabel: { color: colour('faint'), hideOverlap: true },
        },
        yAxis: upright('share right', { ...share('share right'), scale: false }),
        series: [
            {
                type: 'bar',
                barMaxWidth: 60,
                itemStyle: { color: mark(0), opacity: 0.75 },
                data: bins.map((bin) => bin.accuracy),
            },
            whiskers,
        ],
    };
}

const DRAWN = {
    importance,
    confusion,
    roc,
    'precision-recall': precisionRecall,
    calibration,
    lengths,
};

const charts = [];

function option(name) {
    const own = name.startsWith('learning-') ? learning(Number(name.slice('learning-'.length))) : DRAWN[name]();
    return {
        animation: false,
        backgroundColor: 'transparent',
        color: Array.from({ length: MARKS }, (_, index) => mark(index)),
        textStyle: { fontFamily: 'system-ui, sans-serif', color: colour('text') },
        ...own,
    };
}

function draw() {
    known.clear();
    for (const { chart, name } of charts) chart.setOption(option(name), { notMerge: true });
}

for (const canvas of document.querySelectorAll('.canvas')) {
    const name = canvas.dataset.picture;
    if (name === 'importance') canvas.style.height = `${80 + 34 * report.importance.shares.length}px`;
    if (name === 'confusion') {
        const { length } = (report.test ?? report.validation).labels;
        canvas.style.height = `${Math.min(720, Math.max(240, 80 + 60 * length))}px`;
    }
    const chart = echarts.init(canvas, null, { renderer: 'canvas' });
    charts.push({ chart, name });
    new ResizeObserver(() => chart.resize()).observe(canvas);
}
draw();
dark.addEventListener('change', draw);
// Paper is white, whatever the screen was.
addEventListener('beforeprint', () => {
    root.dataset.print = '';
    draw();
});
addEventListener('afterprint', () => {
    delete root.dataset.print;
    draw();
});
document.body.dataset.ready = 'true';
