//! Keeps web pages out: a page that somebody opens in a browser beside a node must not be able to drive the node.
//!
//! Two doors are shut. A request that a page sends across sites carries an `Origin` other than the `Host`. And a page whose
//! own name was rebound to the node's address asks for that name: a node answers to addresses and to `localhost` only.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Refuses what a foreign web page may have sent.
pub(super) async fn same_site(request: Request, next: Next) -> Response {
    match check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(detail) => Problem::new(StatusCode::FORBIDDEN, detail)
            .hint("use the node's address or localhost; pages of other sites may not use this API")
            .into_response(),
    }
}

fn check(headers: &HeaderMap) -> Result<(), &'static str> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    // HTTP/1.0 has no Host; no browser speaks it.
    let Some(host) = text(header::HOST) else {
        return Ok(());
    };
    let Ok(authority) = host.parse::<Authority>() else {
        return Err("the Host header cannot be read");
    };
    let name = authority.host().trim_matches(['[', ']']);
    if name != "localhost" && name.parse::<IpAddr>().is_err() {
        return Err("the Host header names neither an address nor localhost");
    }
    match text(header::ORIGIN) {
        Some(origin) if origin != format!("http://{host}") => {
            Err("the request comes from another site")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_and_the_own_page_get_through() {
        let cases = [
            (Some("127.0.0.1:7380"), None, true),
            (Some("localhost:7380"), Some("http://localhost:7380"), true),
            (Some("[::1]:7380"), None, true),
            (None, None, true),
            (Some("evil.example:7380"), None, false),
            (Some("127.0.0.1:7380"), Some("http://evil.example"), false),
            (Some("127.0.0.1:7380"), Some("null"), false),
            (Some("127.0.0.1:7380"), Some("http://127.0.0.1:9999"), false),
        ];
        for (host, origin, passes) in cases {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(check(&headers).is_ok(), passes, "{host:?} {origin:?}");
        }
    }
}
