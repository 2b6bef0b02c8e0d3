//! What is refused by the head of a request alone, in terms of HTTP, before anything of it is read: requests that a page of
//! another site made a browser send, and what is no call.

use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, Version};
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
    /// It does not say where it goes, or says it twice.
    #[error("requests of HTTP/1.1 have one head Host")]
    HostMissing,
    /// The route takes another method.
    #[error("this is sent by POST: GET is for calls that change nothing and have one answer")]
    Method,
    /// The body is nothing that a call can be.
    #[error(
        "calls have the content type application/json or application/proto, those with a stream of answers \
         application/connect+json or application/connect+proto, and those of gRPC application/grpc"
    )]
    ContentType,
    /// gRPC is not for HTTP/1.1.
    #[error("gRPC needs HTTP/2: over HTTP/1.1 send application/json")]
    Version,
    /// There is nothing here to look at.
    #[error(
        "this is bmdemo {version}, which speaks gRPC, and JSON by POST with the content type application/json: \
         curl -H 'content-type: application/json' -d '{{}}' http://HOST:PORT/baremetal.v1.MachineService/ListMachines",
        version = env!("CARGO_PKG_VERSION")
    )]
    Nothing,
}

/// The content types of calls, for who sent another one.
const ACCEPT_POST: &str = "application/json, application/proto, application/connect+json, application/connect+proto, application/grpc";

impl HeadRefusal {
    const fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::HostMissing => StatusCode::BAD_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Nothing => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// Name in the metrics.
    pub(super) const fn cause(self) -> &'static str {
        match self {
            Self::Host | Self::HostMissing => "host",
            Self::Origin => "origin",
            Self::Method => "method",
            Self::ContentType => "content_type",
            Self::Version => "version",
            Self::Nothing => "path",
        }
    }

    /// The answer.
    pub(super) fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::new(format!("{self}\n")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self {
            Self::Method => {
                headers.insert(http::header::ALLOW, HeaderValue::from_static("POST"));
            }
            Self::ContentType => {
                let accepted = HeaderValue::from_static(ACCEPT_POST);
                headers.insert(HeaderName::from_static("accept-post"), accepted);
            }
            Self::Host | Self::HostMissing | Self::Origin | Self::Version | Self::Nothing => {}
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

/// Checks that a request of HTTP/1.1 says once where it goes.
///
/// # Errors
/// [`HeadRefusal::HostMissing`].
pub(super) fn has_host(version: Version, headers: &HeaderMap) -> Result<(), HeadRefusal> {
    match version < Version::HTTP_2 && headers.get_all(HOST).iter().count() != 1 {
        true => Err(HeadRefusal::HostMissing),
        false => Ok(()),
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
    fn requests_of_http_1_say_once_where_they_go() {
        let given = |version, count: usize| {
            let one = ("host", "127.0.0.1");
            let pairs =
                (0..count).map(|_| (one.0.parse().unwrap(), HeaderValue::from_static(one.1)));
            let mut headers = HeaderMap::new();
            pairs.for_each(|(name, value): (HeaderName, _)| {
                headers.append(name, value);
            });
            has_host(version, &headers).is_ok()
        };
        assert!(given(Version::HTTP_2, 0) && given(Version::HTTP_11, 1));
        assert!(!given(Version::HTTP_11, 0) && !given(Version::HTTP_11, 2));
        assert!(!given(Version::HTTP_10, 0));
        assert_eq!(HeadRefusal::Method.response().headers()["allow"], "POST");
    }
}
