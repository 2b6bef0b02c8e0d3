//! What is refused by the head of a request alone, in terms of HTTP, before anything of it is read: requests that a page of
//! another site made a browser send, and what is no call of gRPC.

use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use tonic::body::Body;

/// The names under which a server is called. An address is always right: a page that reaches a server by a name of its own
/// (DNS rebinding) has a name in its requests, never an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HostNames(Vec<String>);

impl HostNames {
    /// `names` besides `localhost` and addresses.
    pub(super) fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| plain(name)).collect())
    }

    fn admit(&self, host: &str) -> bool {
        let host = plain(host);
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        bare.unwrap_or(&host).parse::<std::net::IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.0.iter().any(|name| is_called(name, &host))
    }
}

/// Whether a host is the one that is named; `*` stands for one label, as in certificates.
fn is_called(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => {
            host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
        }
        None => name == host,
    }
}

/// A name as names are compared.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Why a request is refused by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadRefusal {
    /// It names a host that the server does not go by.
    #[error(
        "this server does not go by the name in the request: call it by its address or as localhost, or add the name to \
         server.host_names of its configuration"
    )]
    Host,
    /// A page of another site has sent it.
    #[error("requests that pages of other sites send are refused (Origin, Sec-Fetch-Site)")]
    Origin,
    /// The route takes another method.
    #[error("calls are sent by POST")]
    Method,
    /// The body is no gRPC.
    #[error("calls have the content type application/grpc or application/grpc+proto")]
    ContentType,
}

impl HeadRefusal {
    const fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// Name in the metrics.
    pub(super) const fn cause(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Method => "method",
            Self::ContentType => "content_type",
        }
    }

    /// The answer.
    pub(super) fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::new(format!("{self}\n")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self == Self::Method {
            headers.insert(http::header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

/// Checks where a request says that it goes, and whence it comes.
///
/// # Errors
/// [`HeadRefusal`] if it goes to another name, or a page of another site has sent it.
pub(super) fn source(uri: &Uri, headers: &HeaderMap, names: &HostNames) -> Result<(), HeadRefusal> {
    let authority = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST).map(|host| host.to_str().unwrap_or_default()),
    };
    // Who names no host is no browser.
    if authority.is_some_and(|authority| !names.admit(without_port(authority))) {
        return Err(HeadRefusal::Host);
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let is_own = origin
            .zip(authority)
            .is_some_and(|((_, origin), authority)| origin.eq_ignore_ascii_case(authority));
        if !is_own {
            return Err(HeadRefusal::Origin);
        }
    }
    let is_own = |site: &HeaderValue| site == "same-origin" || site == "none";
    match headers.get("sec-fetch-site") {
        Some(site) if !is_own(site) => Err(HeadRefusal::Origin),
        _ => Ok(()),
    }
}

/// Checks that a request is a call of gRPC.
///
/// # Errors
/// [`HeadRefusal`] if its method or its content type is another.
pub(super) fn call(method: &Method, headers: &HeaderMap) -> Result<(), HeadRefusal> {
    if method != Method::POST {
        return Err(HeadRefusal::Method);
    }
    let given = headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let taken = ["application/grpc", "application/grpc+proto"];
    match taken.iter().any(|taken| essence.eq_ignore_ascii_case(taken)) {
        true => Ok(()),
        false => Err(HeadRefusal::ContentType),
    }
}

fn without_port(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect::<HeaderMap>()
    }

    #[test]
    fn a_server_goes_by_addresses_localhost_and_the_names_that_it_was_given() {
        let names = HostNames::new(&["Bmdemo.Example.com", "*.lab.example"].map(str::to_owned));
        for own in [
            "127.0.0.1:50051",
            "10.0.0.7",
            "[::1]:50051",
            "[2001:db8::7]",
            "localhost",
            "LOCALHOST:1",
            "x.localhost:1",
            "bmdemo.example.com:50051",
            "bmdemo.example.com.",
            "a.lab.example:1",
        ] {
            assert!(names.admit(without_port(own)), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:50051",
            "lab.example",
            "a.b.lab.example",
            ".lab.example",
            "localhost.evil.example",
            "bmdemo.example.com.evil.example",
            "127.0.0.1.evil.example",
            "::1",
            "localhost:x",
            "",
        ] {
            assert!(!names.admit(without_port(foreign)), "{foreign}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let uri: Uri = "http://localhost:50051/baremetal.v1.RunService/StartRun".parse().unwrap();
        let checked = |pairs: &[_]| source(&uri, &headers(pairs), &HostNames::default());
        for own in [
            &[][..],
            &[("origin", "http://localhost:50051")],
            &[("origin", "http://LOCALHOST:50051"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(checked(own), Ok(()), "{own:?}");
        }
        for foreign in [
            &[("origin", "http://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "http://localhost:80")],
            &[("origin", "http://localhost")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "")],
            &[("origin", "http://localhost:50051"), ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(checked(foreign), Err(HeadRefusal::Origin), "{foreign:?}");
        }
        let evil: Uri = "http://evil.example/x".parse().unwrap();
        let own = HostNames::default();
        assert_eq!(source(&evil, &HeaderMap::new(), &own), Err(HeadRefusal::Host));
        let path: Uri = "/metrics".parse().unwrap();
        assert_eq!(
            source(&path, &headers(&[("host", "evil.example")]), &own),
            Err(HeadRefusal::Host)
        );
        assert_eq!(source(&path, &headers(&[("host", "127.0.0.1:9464")]), &own), Ok(()));
        assert_eq!(source(&path, &HeaderMap::new(), &own), Ok(()));
    }

    #[test]
    fn calls_are_posted_as_grpc() {
        let checked =
            |method: Method, kind: &'static str| call(&method, &headers(&[("content-type", kind)]));
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=x"] {
            assert_eq!(checked(Method::POST, kind), Ok(()), "{kind}");
        }
        for kind in [
            "",
            "text/plain",
            "application/json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc+json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=application/grpc",
        ] {
            assert_eq!(checked(Method::POST, kind), Err(HeadRefusal::ContentType), "{kind}");
        }
        assert_eq!(call(&Method::POST, &HeaderMap::new()), Err(HeadRefusal::ContentType));
        for method in [Method::GET, Method::PUT, Method::OPTIONS, Method::DELETE, Method::HEAD] {
            assert_eq!(checked(method, "application/grpc"), Err(HeadRefusal::Method));
        }
        assert_eq!(HeadRefusal::Method.response().headers()["allow"], "POST");
    }
}
