//! Paths of files and directories: an empty one, or a directory that is not there, is named by its key and its flag.

use std::path::Path;

use super::args::Args;
use super::file::File;

/// Refuses paths that cannot be meant.
///
/// # Errors
/// What is wrong, naming key and flag.
pub(super) fn check(args: &Args, file: &File) -> Result<(), String> {
    let (tls, boot) = (&file.tls, file.boot.as_ref());
    let flags = [
        ("--data-dir", &args.data_dir),
        ("--store-password-file", &args.store_password_file),
        ("--plans-dir", &args.plans_dir),
        ("--actions-dir", &args.actions_dir),
        ("--credentials-dir", &args.credentials_dir),
        ("--tls-cert-file", &args.tls_cert_file),
        ("--tls-key-file", &args.tls_key_file),
        ("--tls-client-ca-file", &args.tls_client_ca_file),
        ("--tls-crl-file", &args.tls_crl_file),
    ];
    let keys = [
        ("store.data_dir", file.store.data_dir.as_ref()),
        ("store.password_file", file.store.password_file.as_ref()),
        ("plans.dir", file.plans.dir.as_ref()),
        ("actions.dir", file.actions.dir.as_ref()),
        ("credentials.dir", file.credentials.dir.as_ref()),
        ("tls.cert_file", tls.cert_file.as_ref()),
        ("tls.key_file", tls.key_file.as_ref()),
        ("tls.client_ca_file", tls.client_ca_file.as_ref()),
        ("tls.crl_file", tls.crl_file.as_ref()),
        ("auth.tokens_file", file.auth.tokens_file.as_ref()),
        ("auth.jwt.jwks_file", file.auth.jwt.as_ref().map(|jwt| &jwt.jwks_file)),
        ("audit.key_file", file.audit.key_file.as_ref()),
        ("boot.files_dir", boot.and_then(|boot| boot.files_dir.as_ref())),
    ];
    let flags = flags.into_iter().map(|(name, path)| (name, path.as_ref()));
    let given = flags.chain(keys).filter_map(|(name, path)| Some((name, path?)));
    for (name, path) in given {
        if path.as_os_str().is_empty() {
            return Err(format!("{name} is empty: give a path, or leave it out"));
        }
        // What is written there is made by the server; what is read must be there.
        if ["--plans-dir", "plans.dir", "--actions-dir", "actions.dir"].contains(&name) {
            directory(name, path)?;
        }
    }
    Ok(())
}

fn directory(name: &str, path: &Path) -> Result<(), String> {
    let path_shown = path.display();
    match path.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("{name} is {path_shown}, which is no directory")),
        Err(error) => Err(format!("{name} is {path_shown}, which cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn checked(flags: &[&str], text: &str) -> Result<(), String> {
        let args = Args::try_parse_from([&["bmdemo-server"], flags].concat()).unwrap();
        check(&args, &toml::from_str(text).unwrap())
    }

    #[test]
    fn a_path_that_cannot_be_meant_is_named() {
        assert_eq!(checked(&["--plans-dir", "/"], "[store]\ndata_dir = \"new\""), Ok(()));
        for (flags, text, says) in [
            (&[][..], "[store]\ndata_dir = \"\"", "store.data_dir is empty"),
            (&[][..], "[tls]\ncert_file = \"\"", "tls.cert_file is empty"),
            (&[][..], "[plans]\ndir = \"/nowhere\"", "plans.dir is /nowhere, which cannot be read"),
            (
                &["--plans-dir", "/dev/null"][..],
                "",
                "--plans-dir is /dev/null, which is no directory",
            ),
        ] {
            let error = checked(flags, text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
