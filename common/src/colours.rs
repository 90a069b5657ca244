//! The colours of everything that is looked at in a browser, in one place: the dashboard, reports and explanations.

/// A style sheet that says nothing but what colours there are, by day and by night, as properties of the root.
pub const COLOURS: &str = include_str!("colours.css");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Red, green and blue, 0 to 1.
    type Colour = [f64; 3];

    /// By day, and by night.
    type Pair = [Colour; 2];

    /// Of `1f5fbf` or of `fff`.
    fn parse(text: &str) -> Colour {
        let twice = |sign: char| [sign, sign];
        let digits: String =
            if text.len() == 3 { text.chars().flat_map(twice).collect() } else { text.to_owned() };
        assert_eq!(digits.len(), 6, "#{text} is no colour");
        std::array::from_fn(|part| {
            let value = u8::from_str_radix(&digits[2 * part..2 * part + 2], 16).unwrap();
            f64::from(value) / 255.0
        })
    }

    fn all() -> BTreeMap<&'static str, Pair> {
        let pairs = COLOURS.lines().filter_map(|line| {
            let (name, rest) = line.trim().strip_prefix("--")?.split_once(": light-dark(")?;
            let (day, night) = rest.strip_suffix(");")?.split_once(", ")?;
            Some((name, [day, night].map(|colour| parse(colour.strip_prefix('#').unwrap()))))
        });
        pairs.collect()
    }

    /// Relative luminance (WCAG 2.2).
    fn luminance(colour: Colour) -> f64 {
        let [red, green, blue] = colour.map(|part| {
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    /// Contrast ratio (WCAG 2.2), 1 to 21.
    fn contrast(one: Colour, other: Colour) -> f64 {
        let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
        one.max(other) / one.min(other)
    }

    /// So much of one colour on another.
    fn mixed(share: f64, colour: Colour, ground: Colour) -> Colour {
        std::array::from_fn(|part| share * colour[part] + (1.0 - share) * ground[part])
    }

    /// Names of a family: `mark-0`, `mark-1` and so on.
    fn family(stem: &str) -> Vec<&'static str> {
        let is_own = |name: &&str| {
            let number = name.strip_prefix(stem);
            number.is_some_and(|number| number.chars().all(|sign| sign.is_ascii_digit()))
        };
        all().into_keys().filter(is_own).collect()
    }

    #[test]
    fn the_measure_is_that_of_the_standard() {
        let (black, white) = ([0.0; 3], [1.0; 3]);
        assert!((contrast(black, white) - 21.0).abs() < 1e-9);
        // The lightest grey that may be text on white.
        assert!(contrast(parse("767676"), white) >= 4.5 && contrast(parse("777777"), white) < 4.5);
    }

    #[test]
    fn text_and_lines_are_seen_by_day_and_by_night() {
        let all = all();
        let states = ["good", "wait", "stop", "rest", "bad", "busy"];
        let (marks, ramp, heat) = (family("mark-"), family("ramp-"), family("heat-"));
        assert_eq!((marks.len(), ramp.len(), heat.len()), (12, 4, 3));
        let mut wanted = Vec::new();
        let text = ["text", "faint", "accent", "bad"];
        for ground in ["page", "card"] {
            wanted.extend(text.map(|name| (name, ground, 4.5)));
            wanted.push(("edge", ground, 3.0));
        }
        wanted.extend([("on-accent", "accent", 4.5), ("notice-text", "notice", 4.5)]);
        wanted.extend(states.map(|state| ("on-state", state, 4.5)));
        wanted.extend(states.map(|state| (state, "card", 4.5)));
        // Names at the ends of lines have their colour.
        wanted
            .extend(marks.iter().flat_map(|mark| [("on-mark", *mark, 4.5), (*mark, "card", 4.5)]));
        wanted.extend(ramp.iter().map(|step| (*step, "card", 3.0)));
        wanted.extend(heat.iter().map(|step| ("text", *step, 4.5)));
        for (name, ground, least) in wanted {
            for (time, number) in [("day", 0), ("night", 1)] {
                let found = contrast(all[name][number], all[ground][number]);
                assert!(found >= least, "{name} on {ground} by {time}: {found:.2} of {least}");
            }
        }
    }

    #[test]
    fn words_are_read_on_their_colours() {
        let all = all();
        let strongest = COLOURS.split("--strongest: ").nth(1).unwrap().split('%').next().unwrap();
        let share = strongest.parse::<f64>().unwrap() / 100.0;
        for number in [0, 1] {
            for (name, ground) in
                [("for", "page"), ("for", "card"), ("against", "page"), ("against", "card")]
            {
                let under = mixed(share, all[name][number], all[ground][number]);
                let found = contrast(all["text"][number], under);
                assert!(found >= 4.5, "text on {name} on {ground}: {found:.2}");
            }
            // The row of the best trial.
            let under = mixed(0.1, all["good"][number], all["card"][number]);
            for name in ["text", "faint", "accent"] {
                assert!(contrast(all[name][number], under) >= 4.5, "{name} on the best row");
            }
        }
    }
}
