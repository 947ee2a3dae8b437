//! What holds for every answer of the console: nothing is done at the wish of another site's page, and the browser
//! loads and runs nothing but ours.

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Styles, scripts and requests of our own, nothing inline. `data:` is for the browser's own controls.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let mut response = if request.method().is_safe() || is_own_page(&request) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "This came from another site's page, and was not done.\n").into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: with it, browsers hide the origin of forms too.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether the page that sends this is one of ours. Browsers say where a POST comes from, and pages cannot lie about it.
fn is_own_page(request: &Request) -> bool {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    // Older browsers, and pages that are not served over https or from localhost.
    let origin = text("origin").and_then(|origin| origin.split_once("://"));
    // HTTP/2 has no `Host`.
    let host = request.uri().authority().map(|authority| authority.as_str()).or_else(|| text("host"));
    origin.is_some_and(|(_, origin)| host == Some(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(headers: &[(&'static str, &'static str)]) -> bool {
        let mut request = Request::post("/servers/drain");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        is_own_page(&request.body(axum::body::Body::empty()).unwrap())
    }

    #[test]
    fn only_our_own_pages_may_do_something() {
        assert!(own(&[("host", "limpet:8080"), ("origin", "http://limpet:8080")]));
        assert!(own(&[("host", "inside"), ("origin", "https://outside"), ("sec-fetch-site", "same-origin")]));
        assert!(!own(&[("host", "limpet:8080"), ("origin", "http://evil.example")]));
        assert!(!own(&[("host", "limpet:8080"), ("origin", "http://limpet:8081")]));
        assert!(!own(&[("host", "limpet:8080"), ("origin", "null")]));
        assert!(!own(&[("host", "limpet:8080")]));
        for site in ["cross-site", "same-site", "none"] {
            assert!(!own(&[("host", "a"), ("origin", "http://a"), ("sec-fetch-site", site)]), "{site}");
        }
    }
}
