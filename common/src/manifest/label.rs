//! The `data.label` section: which column holds the class, and how.

use super::reader::Field;
use super::section::{optional, read_names};
use super::source::{LabelRange, LabelRule};

pub(super) fn read_label(field: &Field<'_>) -> Option<LabelRule> {
    let section = field.section()?;
    let column = section.require("column", "COLUMN").and_then(|field| field.text());
    let both = section.get("names").and(section.get("ranges")).is_some();
    let names = optional(section.get("names"), |field| read_class_names(&field).map(Some));
    let ranges = optional(section.get("ranges"), |field| read_ranges(&field).map(Some));
    section.finish();
    if both {
        field.refuse_mend("expected `names` or `ranges`, not both", "remove one of them");
        return None;
    }
    let (column, names, ranges) = (column?.to_owned(), names?, ranges?);
    Some(match ranges {
        Some(ranges) => LabelRule::Ranges { column, ranges },
        None => LabelRule::Class { column, names },
    })
}

fn read_class_names(field: &Field<'_>) -> Option<Vec<String>> {
    let names = read_names(field)?;
    if names.len() < 2 {
        field.refuse_mend("one class leaves nothing to learn", "name at least two");
        return None;
    }
    Some(names)
}

fn read_ranges(field: &Field<'_>) -> Option<Vec<LabelRange>> {
    let items = field.items()?;
    let read: Vec<Option<LabelRange>> = items.iter().map(read_range).collect();
    if items.len() < 2 {
        field.refuse_mend("one class leaves nothing to learn", "add a second range");
        return None;
    }
    let mut legal = true;
    for (index, (item, range)) in items.iter().zip(&read).enumerate() {
        let Some(range) = range else { continue };
        for other in read.iter().take(index).flatten() {
            if other.name == range.name {
                item.refuse_mend(format!("two ranges are called `{}`", range.name), "rename one");
            } else if other.overlaps(range) {
                let message = format!("ranges `{}` and `{}` overlap", other.name, range.name);
                item.refuse_mend(message, "move their bounds apart: a row belongs to one class");
            } else {
                continue;
            }
            legal = false;
        }
    }
    read.into_iter().collect::<Option<Vec<_>>>().filter(|_| legal)
}

fn read_range(field: &Field<'_>) -> Option<LabelRange> {
    let section = field.section()?;
    let name = section.require("name", "positive").and_then(|field| field.text());
    let bounded = section.get("above").or(section.get("below")).is_some();
    let above = optional(section.get("above"), |field| field.number().map(Some));
    let below = optional(section.get("below"), |field| field.number().map(Some));
    section.finish();
    if !bounded {
        field.refuse_mend("the range has no bounds", "add `above`, `below` or both");
        return None;
    }
    let (name, above, below) = (name?.to_owned(), above?, below?);
    if above.zip(below).is_some_and(|(above, below)| above >= below) {
        let message = format!("no number lies in range `{name}`");
        field.refuse_mend(message, "`above` must be smaller than `below`");
        return None;
    }
    Some(LabelRange { name, above, below })
}
