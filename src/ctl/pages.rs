//! Lists that come in pages: asked for one after the other, so that no question is large for the server.

use limpet_shared::admin::{PAGE, Reply, Request};

use super::{Asked, CtlError};

/// Asks until there are so many entries, or no more.
pub(super) async fn gather(asked: &Asked, mut request: Request, limit: u32) -> Result<Reply, CtlError> {
    let mut all = asked.ask(&request).await?;
    while let Some(offset) = goes_on(&request, &all).filter(|_| count(&all) < limit) {
        let (Request::Gateways { offset: at, .. }
        | Request::Devices { offset: at, .. }
        | Request::Integrations { offset: at }) = &mut request
        else {
            break;
        };
        *at = offset;
        let next = asked.ask(&request).await?;
        if let Reply::Error { .. } = next {
            return Ok(next);
        }
        append(&mut all, next);
    }
    cut(&mut all, limit);
    Ok(all)
}

fn count(reply: &Reply) -> u32 {
    let count = match reply {
        Reply::Gateways { gateways, .. } => gateways.len(),
        Reply::Devices { devices, .. } => devices.len(),
        Reply::Integrations { integrations, .. } => integrations.len(),
        _ => 0,
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Where the page after the one that was asked for last begins, if there is one. `all` begins where the first one did.
fn goes_on(last: &Request, all: &Reply) -> Option<u32> {
    match (last, all) {
        (Request::Gateways { offset, .. }, Reply::Gateways { gateways, more, .. }) => {
            // A server of the version before knows no offset, and gives more than a page.
            let fits = gateways.len() as u64 <= u64::from(*offset) + u64::from(PAGE);
            (*more > 0 && fits).then(|| offset.saturating_add(PAGE))
        }
        (Request::Devices { offset, .. }, Reply::Devices { total, .. }) => {
            let next = offset.saturating_add(PAGE);
            (next < *total).then_some(next)
        }
        (Request::Integrations { .. }, Reply::Integrations { next, .. }) => *next,
        _ => None,
    }
}

/// Puts a page behind what there is.
fn append(all: &mut Reply, page: Reply) {
    match (all, page) {
        (Reply::Gateways { gateways, more, note }, Reply::Gateways { gateways: page, more: left, note: said }) => {
            gateways.extend(page);
            (*more, *note) = (left, if note.is_empty() { said } else { std::mem::take(note) });
        }
        (Reply::Devices { total, devices }, Reply::Devices { total: now, devices: page }) => {
            devices.extend(page);
            *total = now;
        }
        (Reply::Integrations { integrations, next }, Reply::Integrations { integrations: page, next: further }) => {
            integrations.extend(page);
            *next = further;
        }
        _ => {}
    }
}

/// Leaves out what is beyond the limit.
fn cut(all: &mut Reply, limit: u32) {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    match all {
        Reply::Gateways { gateways, more, .. } => {
            let beyond = gateways.len().saturating_sub(most);
            gateways.truncate(most);
            *more = more.saturating_add(u32::try_from(beyond).unwrap_or(u32::MAX));
        }
        Reply::Devices { devices, .. } => devices.truncate(most),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use limpet_shared::{Eui64, admin::Gateway};

    use super::*;

    fn page(euis: std::ops::Range<u64>, more: u32) -> Reply {
        let gateways = euis.map(|eui| Gateway { eui: Eui64(eui), ..Gateway::default() }).collect();
        Reply::Gateways { gateways, more, note: String::new() }
    }

    #[test]
    fn pages_are_put_together_and_cut() {
        let asked = |offset| Request::Gateways { search: String::new(), offset };
        let mut all = page(0..200, 250);
        assert_eq!(goes_on(&asked(0), &all), Some(200));
        append(&mut all, page(200..400, 50));
        assert_eq!(goes_on(&asked(200), &all), Some(400));
        append(&mut all, page(400..450, 0));
        assert_eq!((goes_on(&asked(400), &all), count(&all)), (None, 450));
        cut(&mut all, 420);
        assert!(matches!(&all, Reply::Gateways { gateways, more: 30, .. } if gateways.len() == 420));
        assert_eq!(goes_on(&asked(0), &page(0..10_000, 5)), None, "a server that knows no pages");
    }
}
