//! The boot listener, and the images that machines are installed with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::bounds;
use super::file;
use crate::provider::boot::Image;
use crate::text::escaped;

/// Architecture of an image that names none.
const ARCHITECTURE: &str = "x86_64";
/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;
/// Longest name of an image, and longest value of its settings, in characters.
const TEXT_CHARS_MAX: usize = 1_024;

/// Where machines that are being installed reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct BootSettings {
    /// Where to listen; port 0 takes a free one.
    pub(in crate::server) listen: SocketAddr,
    /// The address by which machines reach it, without a slash at its end; `None` for the one it listens on.
    pub(in crate::server) url: Option<String>,
    /// Kernels, installers and boot loaders that it serves.
    pub(in crate::server) files_dir: Option<PathBuf>,
}

impl BootSettings {
    /// Refuses an address that no machine could reach.
    ///
    /// # Errors
    /// What is wrong, naming the key.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.url {
            Some(url) => is_url(url).then_some(()).ok_or_else(|| {
                format!(
                    "boot.url is {:?}: expected http://HOST:PORT, as machines reach the server",
                    escaped(url)
                )
            }),
            None if self.listen.ip().is_unspecified() => Err(format!(
                "boot.listen is {}, which is no address to reach: give boot.url, such as http://10.0.0.1:{}",
                self.listen,
                self.listen.port()
            )),
            None => Ok(()),
        }
    }
}

/// The images as the file has them.
///
/// # Errors
/// What is wrong, naming the key.
pub(super) fn images(
    file: BTreeMap<String, file::Image>,
) -> Result<BTreeMap<String, Image>, String> {
    file.into_iter().map(|(name, image)| Ok((name.clone(), self::image(&name, image)?))).collect()
}

fn image(name: &str, file: file::Image) -> Result<Image, String> {
    let key = |field: &str| format!("images.{:?}.{field}", escaped(name));
    if name.is_empty()
        || name.chars().count() > TEXT_CHARS_MAX
        || name.chars().any(char::is_control)
    {
        return Err(format!(
            "images.{:?} can be no image: give it a name of printable characters",
            escaped(name)
        ));
    }
    let url = file
        .url
        .ok_or_else(|| format!("{} is missing: where the image is downloaded", key("url")))?;
    if !is_url(&url) {
        return Err(format!(
            "{} is {:?}: expected http:// or https:// and a host",
            key("url"),
            escaped(&url)
        ));
    }
    let sha256 = file.sha256.ok_or_else(|| {
        format!(
            "{} is missing: the checksum of the file that is downloaded, as sha256sum prints it",
            key("sha256")
        )
    })?;
    let is_hex = sha256.chars().all(|c| c.is_ascii_hexdigit());
    if sha256.len() != SHA256_DIGITS || !is_hex {
        return Err(format!(
            "{} is {:?}: expected {SHA256_DIGITS} hexadecimal digits, as sha256sum prints them",
            key("sha256"),
            escaped(&sha256)
        ));
    }
    let architecture = file.architecture.unwrap_or_else(|| ARCHITECTURE.to_owned());
    bounds::printable(&key("architecture"), &architecture, TEXT_CHARS_MAX)?;
    let kernel_arguments = file.kernel_arguments.unwrap_or_default();
    bounds::printable(&key("kernel_arguments"), &kernel_arguments, TEXT_CHARS_MAX)?;
    Ok(Image { url, sha256: sha256.to_ascii_lowercase(), architecture, kernel_arguments })
}

/// Whether this is an address for programs that download: http or https, a host, nothing that a shell would break.
fn is_url(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '\\' | '`'));
    plain
        && text.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri
                    .authority()
                    .is_some_and(|at| !at.host().is_empty() && !at.as_str().contains('@'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<BTreeMap<String, Image>, String> {
        let file: file::File = toml::from_str(toml).unwrap();
        images(file.images)
    }

    #[test]
    fn an_image_has_an_address_and_a_checksum() {
        let sum = "AB".repeat(32);
        let good = format!(
            "[images.\"ubuntu-24.04\"]\nurl = \"http://10.0.0.1/u.raw.gz\"\nsha256 = \"{sum}\""
        );
        let image = &read(&good).unwrap()["ubuntu-24.04"];
        assert_eq!(
            (image.sha256.as_str(), image.architecture.as_str()),
            (&*"ab".repeat(32), "x86_64")
        );
        for (bad, says) in [
            (good.replace("http://", "ftp://"), "images.\"ubuntu-24.04\".url is"),
            (good.replace("10.0.0.1", "user:secret@10.0.0.1"), "url is"),
            (good.replace("u.raw.gz", "u'$(id)"), "url is"),
            (good.replace("AB", "XY"), "hexadecimal digits"),
            (good.replace(&sum, "abcd"), "hexadecimal digits"),
            ("[images.one]\nurl = \"http://10.0.0.1/\"".to_owned(), "sha256 is missing"),
            (format!("[images.one]\nsha256 = \"{sum}\""), "url is missing"),
            (format!("{good}\nkernel_arguments = \"a\\nb\""), "kernel_arguments"),
        ] {
            let error = read(&bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn machines_must_be_able_to_reach_the_listener() {
        let check = |listen: &str, url: Option<&str>| {
            let (listen, url) = (listen.parse().unwrap(), url.map(str::to_owned));
            BootSettings { listen, url, files_dir: None }.check()
        };
        assert_eq!(check("10.0.0.1:8069", None), Ok(()));
        assert_eq!(check("0.0.0.0:8069", Some("http://10.0.0.1:8069")), Ok(()));
        assert!(check("0.0.0.0:8069", None).unwrap_err().contains("boot.url"));
        assert!(check("10.0.0.1:8069", Some("10.0.0.1")).unwrap_err().contains("http://HOST:PORT"));
    }
}
