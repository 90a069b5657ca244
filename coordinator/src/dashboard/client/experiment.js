// One experiment: how it goes, and what can be learned from it.

import { experimentActions } from './actions.js';
import { get, text } from './api.js';
import { comparison } from './comparison.js';
import { badge, failure, fill, h, section, tile, tiles, trialLink } from './elements.js';
import { stateOf } from './experiments.js';
import { duration, moment, number, percent, score, whole, words } from './format.js';
import { ladder, savings } from './ladder.js';
import { learning } from './learning.js';
import { history, importance, parallel, plane } from './space.js';
import { timeline } from './timeline.js';
import { trialTable } from './trials.js';

export function experiment(id, session) {
    const state = { experiment: null, compared: new Set(), metric: 'results', names: [] };
    const title = h('div', { class: 'head' });
    const facts = h('div');
    const about = h('div');
    const curves = learning(id, state);
    const rungs = ladder(id);
    const spread = parallel(id);
    const matter = importance();
    const two = plane(id);
    const course = history(id);
    const slots = timeline('Timeline of slots', false);
    const compare = comparison(id, state);
    const trials = trialTable(id, state, () => compare.refresh());
    const decided = h('div');
    const parts = [curves, rungs, spread, matter, two, course, slots, compare];
    const element = h(
        'div',
        { class: 'page' },
        title,
        facts,
        h(
            'div',
            { class: 'grid' },
            h('div', { class: 'wide' }, curves.element),
            h('div', { class: 'wide' }, trials.element),
            compare.element,
            rungs.element,
            matter.element,
            h('div', { class: 'wide' }, spread.element),
            two.element,
            course.element,
            h('div', { class: 'wide' }, slots.element),
            h('div', null, decided),
            h('div', null, about),
        ),
    );

    async function refresh() {
        const answer = await get(`/experiments/${id}`);
        state.experiment = answer;
        fill(
            title,
            h(
                'div',
                null,
                h('h1', null, id, ' ', badge(stateOf(answer))),
                answer.description ? h('p', { class: 'note' }, answer.description) : null,
                answer.reason ? h('p', { class: 'notice' }, answer.reason) : null,
            ),
            experimentActions(answer, session),
        );
        fill(facts, figures(answer));
        fill(decided, decisions(id, answer));
        fill(about, setup(id, answer));
        // Each is drawn as soon as it is there: shares of thousands of results take a moment.
        const points = get(`/experiments/${id}/points?limit=500`);
        const shares = get(`/experiments/${id}/importance`);
        await Promise.all([
            curves.refresh(),
            rungs.refresh(),
            trials.refresh(),
            compare.refresh(),
            points.then((all) => spread.update({ experiment: answer, points: all })),
            points.then((all) => course.update({ experiment: answer, points: all })),
            shares.then((all) => matter.update(all)),
            Promise.all([points, shares]).then(([all, { shares }]) =>
                two.update({ experiment: answer, points: all, shares }),
            ),
            get(`/experiments/${id}/timeline`).then((spans) => slots.update(spans)),
        ]);
    }

    return { title: id, element, refresh, dispose: () => parts.forEach((part) => part.dispose()) };
}

function figures(answer) {
    const best = answer.best;
    const { metric, mode } = answer.objectives[0];
    const took = ((answer.ended_at_ms ?? answer.now_ms) - answer.created_at_ms) / 1000;
    return tiles(
        tile(
            `Best ${words(metric)} (${mode})`,
            best ? [score(best.objective), ' ', trialLink(answer.id, best.trial)] : '-',
        ),
        best && best.test !== null
            ? tile(`Test ${words(metric)}`, score(best.test), 'Scored once, for the chosen trial')
            : null,
        tile('Trials', [
            `${whole(answer.num_trials)} of ${whole(answer.max_trials)}`,
            h(
                'small',
                null,
                Object.entries(answer.trials)
                    .map(([state, count]) => `${count} ${state}`)
                    .join(', '),
            ),
        ]),
        tile(answer.ended_at_ms === null ? 'Runs for' : 'Took', [
            duration(took),
            answer.seconds_left === null
                ? null
                : h('small', null, `about ${duration(answer.seconds_left)} left`),
        ]),
        answer.ended_at_ms === null
            ? tile('Slots', [
                  number(answer.slots),
                  h('small', null, `${duration(answer.slot_seconds)} of slots used`),
              ])
            : tile('Slot time', duration(answer.slot_seconds)),
        answer.ended_at_ms === null
            ? tile('Speed', [number(answer.examples_per_second), h('small', null, 'examples/s')])
            : null,
        tile('Saved by early stopping', [
            percent(answer.savings.saved_share),
            h('small', null, savings(answer.savings, duration)),
        ]),
    );
}

function decisions(id, answer) {
    const list = h(
        'ol',
        { class: 'decisions' },
        answer.decisions.map((one) =>
            h(
                'li',
                null,
                h('time', null, moment(one.at_ms)),
                ' ',
                one.trial === null ? null : [trialLink(id, one.trial), ': '],
                one.text,
            ),
        ),
    );
    const more = answer.num_decisions - answer.decisions.length;
    return section(
        'What was decided',
        null,
        answer.decisions.length ? list : h('p', { class: 'empty' }, 'nothing yet'),
        more > 0
            ? h('p', { class: 'note' }, `${more} earlier ones; a trial's page has all of that trial`)
            : null,
    );
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
    return section(
        'Set-up',
        null,
        h(
            'dl',
            { class: 'facts' },
            row(
                'Searched',
                h(
                    'ul',
                    null,
                    answer.parameters.map((one) => h('li', null, `${words(one.name)}: ${range(one)}`)),
                ),
            ),
            row('Sampler, pruner', `${answer.sampler}, ${answer.pruner}`),
            row('Model', answer.model),
            row('Seed', answer.seed),
            row('A trial takes', answer.slots_per_trial),
            answer.constraints.length ? row('Constraints', answer.constraints.join('; ')) : null,
            data
                ? row(
                      'Examples',
                      [
                              `${whole(data.num_train)} train, `,
                              `${whole(data.num_validation)} validation, ${whole(data.num_test)} test`,
                          ],
                  )
                : null,
            data ? row('Classes', data.labels.join(', ')) : null,
            row('Project, priority', `${answer.project ?? 'none'}, ${answer.priority}`),
            row('Files', answer.location),
            answer.best?.model ? row('Best model', answer.best.model) : null,
            answer.warnings.length ? row('Warnings', answer.warnings.join('; ')) : null,
        ),
        fold,
    );
}
