//! Parts of lists, as ChirpStack's clients ask for them.

use std::cmp::Ordering;

use limpet_store::{List, Page};

use crate::error::{ApiError, Result};

/// Entries of one answer; who wants more asks again with an offset.
pub(crate) const MOST: u32 = 10_000;
/// Entries that are filtered or sorted by something that the store has no order for.
const SORTABLE: u32 = 20_000;

/// A list of everything that matches, to be filtered or sorted here.
pub(crate) fn everything(list: &List) -> List {
    List { limit: SORTABLE, offset: 0, ..list.clone() }
}

/// The part that `list` asks for of all that [`everything`] gave, in an order of the caller's.
pub(crate) fn part<T>(
    all: Page<T>,
    list: &List,
    keep: impl Fn(&T) -> bool,
    order: impl Fn(&T, &T) -> Ordering,
    descending: bool,
) -> Result<Page<T>> {
    if all.total > SORTABLE {
        return Err(ApiError::Exhausted(format!(
            "more than {SORTABLE} entries cannot be filtered by tags or sorted like this: narrow the list"
        )));
    }
    let mut items: Vec<T> = all.items.into_iter().filter(keep).collect();
    items.sort_by(|a, b| if descending { order(b, a) } else { order(a, b) });
    let total = u32::try_from(items.len()).unwrap_or(u32::MAX);
    let items = items.into_iter().skip(list.offset as usize).take(list.limit as usize).collect();
    Ok(Page { total, items })
}
