//! Files of the boot listener: boot loaders, kernels and installers for machines that boot over the network.
//!
//! They are for everyone on that network, so nothing secret belongs there. Only regular files below the directory are
//! served, links included that do not lead out of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use futures_util::stream::{self, Stream};
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Bytes;
use tokio::task::spawn_blocking;
use tonic::body::Body;

use crate::files;
use crate::server::config::ConfigError;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 128 * 1024;
/// Longest path, in characters.
const PATH_CHARS_MAX: usize = 256;

/// The directory that is served, if there is one.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Files(Option<PathBuf>);

impl Files {
    /// The files below `dir`.
    ///
    /// # Errors
    /// [`ConfigError`] if it is no directory, or others could put files of their own into it.
    pub(in crate::server) fn open(dir: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(dir) = dir else { return Ok(Self(None)) };
        let refused = |why: String| {
            ConfigError::Setting(format!("boot.files_dir is {}: {why}", dir.display()))
        };
        let root = dir.canonicalize().map_err(|error| refused(error.to_string()))?;
        let metadata = root.metadata().map_err(|error| refused(error.to_string()))?;
        if !metadata.is_dir() {
            return Err(refused("it is no directory".to_owned()));
        }
        // They would decide what machines boot.
        files::refuse_writable_dir(&root).map_err(|error| refused(error.to_string()))?;
        Ok(Self(Some(root)))
    }

    /// Whether there are any.
    pub(super) fn are_served(&self) -> bool {
        self.0.is_some()
    }

    /// The file at this path; `None` if there is none.
    pub(super) async fn answer(&self, path: &str, wants_body: bool) -> Option<Response<Body>> {
        let opened = match self.0.clone().filter(|_| is_plain(path)) {
            Some(root) => {
                let path = path.to_owned();
                spawn_blocking(move || open(&root, &path))
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let (file, len) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(path, %error, "a boot file is not served");
                return None;
            }
        };
        let body =
            if wants_body { Body::new(StreamBody::new(chunks(file, len))) } else { Body::empty() };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        Some(response)
    }
}

/// Whether a path has only parts that name something below: none is hidden or leads up.
fn is_plain(path: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    path.len() <= PATH_CHARS_MAX
        && path
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(letter))
}

fn open(root: &Path, path: &str) -> io::Result<(File, u64)> {
    let found = root.join(path).canonicalize()?;
    if !found.starts_with(root) {
        return Err(io::Error::other("a link leads out of the directory"));
    }
    files::open_regular(&found)
}

/// The first `len` bytes of a file; an error ends the answer early, which the machine notices by its length.
fn chunks(file: File, len: u64) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send {
    stream::try_unfold((file, len), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let size = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let read = spawn_blocking(move || {
            let mut chunk = vec![0; size];
            let read = file.read(&mut chunk)?;
            chunk.truncate(read);
            Ok::<_, io::Error>((file, chunk))
        });
        let (file, chunk) = read.await.map_err(io::Error::other)??;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let left = left.saturating_sub(chunk.len() as u64);
        Ok(Some((Frame::data(Bytes::from(chunk)), (file, left))))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    async fn read(body: Body) -> Vec<u8> {
        http_body_util::BodyExt::collect(body).await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn regular_files_below_the_directory_are_served_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let kernel: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::create_dir_all(at("public/debian/12")).unwrap();
        std::fs::write(at("secret"), "no").unwrap();
        std::fs::write(at("public/debian/12/vmlinuz"), &kernel).unwrap();
        std::fs::write(at("public/.hidden"), "no").unwrap();
        symlink("12", at("public/debian/stable")).unwrap();
        symlink(at("secret"), at("public/out")).unwrap();
        let files = Files::open(Some(&at("public"))).unwrap();
        for path in ["debian/12/vmlinuz", "debian/stable/vmlinuz"] {
            let response = files.answer(path, true).await.unwrap();
            assert_eq!(response.headers()[CONTENT_LENGTH], "300000");
            assert!(read(response.into_body()).await == kernel, "{path}");
            let head = files.answer(path, false).await.unwrap();
            assert_eq!(
                head.headers()[CONTENT_LENGTH],
                "300000",
                "firmware asks for the size first"
            );
            assert_eq!(read(head.into_body()).await, b"");
        }
        for path in [
            "",
            "/",
            "debian",
            "debian/",
            ".hidden",
            "../secret",
            "debian/../../secret",
            "out",
            "%2e%2e/secret",
            "/etc/passwd",
            "debian//12/vmlinuz",
            "debian\\12\\vmlinuz",
            &"a/".repeat(200),
        ] {
            assert!(files.answer(path, true).await.is_none(), "{path}");
        }
        let none = Files::open(None).unwrap();
        assert!(none.answer("debian/12/vmlinuz", true).await.is_none());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Files::open(Some(path)).unwrap_err().to_string();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o775)).unwrap();
        assert!(refused(dir.path()).contains("chmod go-w"));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(refused(&dir.path().join("file")).contains("no directory"));
        assert!(refused(&dir.path().join("none")).contains("boot.files_dir is"));
    }
}
