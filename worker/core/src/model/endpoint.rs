//! The URLs of an application's HTTP integration: events go to each, and wait for each, by itself.

use alloc::{borrow::Cow, format, string::String, vec::Vec};

use uuid::Uuid;

use super::{Application, HttpIntegration};
use crate::ident;

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint<'a> {
    /// What its events wait under. The only URL of an application has the application's id: if another one takes its place,
    /// it gets what waits. One of several has an id of its own, whatever its place.
    pub id: Uuid,
    /// What they wait under, or have waited, when it is one of several.
    pub apart: Uuid,
    /// Of this URL alone.
    pub http: Cow<'a, HttpIntegration>,
}

impl Application {
    /// Where its events go, each URL once.
    pub fn endpoints(&self) -> Vec<Endpoint<'_>> {
        let Some(http) = &self.http else { return Vec::new() };
        match http.urls().as_slice() {
            [] | [_] => alloc::vec![self.all_of(http)],
            urls => urls.iter().map(|url| self.endpoint_of(http, url)).collect(),
        }
    }

    /// Whom that waits for which waits under this id. Under the application's own it is for all of its URLs. `None` if that URL was
    /// taken out, or the integration.
    pub fn endpoint(&self, id: Uuid) -> Option<Endpoint<'_>> {
        let http = self.http.as_ref()?;
        if id == self.id {
            return Some(self.all_of(http));
        }
        http.urls().into_iter().map(|url| self.endpoint_of(http, url)).find(|endpoint| endpoint.id == id)
    }

    /// All URLs together.
    fn all_of<'a>(&self, http: &'a HttpIntegration) -> Endpoint<'a> {
        let first = http.urls().first().copied().unwrap_or_default();
        Endpoint { id: self.id, apart: ident::endpoint(self.id, first), http: Cow::Borrowed(http) }
    }

    fn endpoint_of(&self, http: &HttpIntegration, url: &str) -> Endpoint<'static> {
        let http = HttpIntegration { url: url.into(), json: http.json, headers: http.headers.clone() };
        let id = ident::endpoint(self.id, url);
        Endpoint { id, apart: id, http: Cow::Owned(http) }
    }

    /// The ids under which something may wait for it: for all of its URLs, and for each of them.
    pub fn waiting_ids(&self) -> Vec<Uuid> {
        let urls = self.http.iter().flat_map(HttpIntegration::urls);
        core::iter::once(self.id).chain(urls.map(|url| ident::endpoint(self.id, url))).collect()
    }
}

impl HttpIntegration {
    /// Its URLs, each once.
    pub fn urls(&self) -> Vec<&str> {
        let mut urls = Vec::new();
        for url in self.url.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        urls
    }

    /// Of each URL scheme, host and port, with commas between them: user, path and query may hold secrets.
    pub fn origins(&self) -> String {
        let origin = |url: &str| {
            let (scheme, rest) = url.split_once("://")?;
            let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            Some(format!("{scheme}://{host}"))
        };
        self.urls().into_iter().filter_map(origin).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    fn application(urls: &str) -> Application {
        let http = HttpIntegration { url: urls.into(), json: true, ..HttpIntegration::default() };
        Application { id: ID, http: Some(http), ..Application::default() }
    }

    fn ids(of: &Application) -> Vec<(String, Uuid)> {
        of.endpoints().into_iter().map(|one| (one.http.url.clone(), one.id)).collect()
    }

    #[test]
    fn of_an_endpoint_only_what_is_no_secret_is_told() {
        let urls = "https://user:hunter2@example.org:8443/hook/hunter3?token=hunter4, http://[::1]:9000?x=/@hunter5";
        assert_eq!(application(urls).http.unwrap().origins(), "https://example.org:8443,http://[::1]:9000");
    }

    #[test]
    fn the_only_url_has_the_applications_id_and_one_of_several_its_own_wherever_it_stands() {
        assert_eq!(ids(&application("http://a/"))[0].1, ID);
        assert_eq!(ids(&application("http://a/, http://a/,"))[0].1, ID, "it is one, however often it stands there");
        let (one, other) =
            (ids(&application("http://a/,http://b/")), ids(&application("http://c/, http://b/ ,http://a/")));
        assert_eq!((&one[0], &one[1]), (&other[2], &other[1]));
        assert!(one[0].1 != one[1].1 && one.iter().all(|(_, id)| *id != ID));
        let elsewhere = ids(&Application { id: Uuid::from_u128(2), ..application("http://a/,http://b/") });
        assert!(elsewhere.iter().all(|(_, id)| one.iter().all(|(_, known)| known != id)));
    }

    #[test]
    fn what_waits_finds_its_url_as_long_as_there_is_one() {
        let both = application("http://a/,http://b/");
        let [a, b] = [0, 1].map(|at| both.endpoints()[at].id);
        let url = |of: &Application, id| of.endpoint(id).map(|one| one.http.url.clone());
        assert_eq!(url(&both, a).as_deref(), Some("http://a/"));
        assert_eq!(url(&both, ID).as_deref(), Some("http://a/,http://b/"));
        let one = application("http://b/");
        assert_eq!((url(&one, a), url(&one, b).as_deref()), (None, Some("http://b/")));
        assert_eq!(one.waiting_ids(), [ID, b]);
        assert_eq!(Application { http: None, ..both }.endpoint(b), None);
    }
}
