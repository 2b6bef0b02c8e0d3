//! How a connection is made: the name is resolved, each address is checked, and exactly the checked one is connected to.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::error::{CallError, CallErrorKind};
use super::networks::Networks;
use super::origin::Origin;
use crate::address::Host;

/// Boxed future.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection, before TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Makes connections.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Connects to an origin.
    fn dial<'a>(&'a self, to: &'a Origin) -> Fut<'a, Result<Box<dyn Stream>, CallError>>;
}

/// Finds the addresses of names.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a name.
    fn resolve<'a>(&'a self, name: &'a str) -> Fut<'a, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the operating system.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Fut<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Connects over TCP, inside configured networks.
#[derive(Debug, Clone)]
pub struct TcpDial {
    networks: Networks,
    resolver: Arc<dyn Resolve>,
}

/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

impl TcpDial {
    /// Only inside these networks.
    #[must_use]
    pub fn new(networks: Networks) -> Self {
        Self::resolving(networks, Arc::new(SystemResolver))
    }

    /// With a resolver of its own.
    #[must_use]
    pub fn resolving(networks: Networks, resolver: Arc<dyn Resolve>) -> Self {
        Self { networks, resolver }
    }

    /// The addresses of a host that may be connected to.
    ///
    /// # Errors
    /// If there are none, with the reason.
    pub async fn allowed(&self, host: &Host) -> Result<Vec<IpAddr>, CallError> {
        let found = match host {
            Host::Ip(address) => vec![*address],
            Host::Name(name) => self.resolver.resolve(name).await.map_err(|error| {
                let message = format!("{name} has no address: {error}");
                CallError::new(CallErrorKind::Unreachable, message)
            })?,
        };
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in found.into_iter().take(ADDRESSES_MAX) {
            match self.networks.check(address) {
                Ok(()) => allowed.push(address.to_canonical()),
                Err(why) => refused = Some(why),
            }
        }
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(why)) => {
                let name = match host {
                    Host::Ip(_) => String::new(),
                    Host::Name(name) => format!("{name} is not called: "),
                };
                Err(CallError::new(CallErrorKind::NotAllowed, format!("{name}{why}")))
            }
            (true, None) => {
                Err(CallError::new(CallErrorKind::Unreachable, format!("{host} has no address")))
            }
        }
    }
}

impl Dial for TcpDial {
    fn dial<'a>(&'a self, to: &'a Origin) -> Fut<'a, Result<Box<dyn Stream>, CallError>> {
        Box::pin(async move {
            let mut failed = None;
            for address in self.allowed(&to.host).await? {
                match TcpStream::connect(SocketAddr::new(address, to.port)).await {
                    Ok(stream) => {
                        // Small requests, each waited for.
                        drop(stream.set_nodelay(true));
                        return Ok(Box::new(stream) as Box<dyn Stream>);
                    }
                    Err(error) => failed = Some(format!("{address}: {error}")),
                }
            }
            let why = failed.unwrap_or_default();
            Err(CallError::new(
                CallErrorKind::Unreachable,
                format!("cannot connect to {to}: {why}"),
            ))
        })
    }
}
