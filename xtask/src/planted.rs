//! Planted bugs: `bugs/*.patch`, what their headers say, and the scratch copy that they go into.
//!
//! Why: a sweep that finds nothing shows something only when it would have found something.
//!
//! The copy serves every other test that has to fail on a planted bug, too.
//!
//! Invariants:
//! - the tree itself is never touched: the copy lies in the target folder;
//! - a patch says in its header who must find it, and applies to the tree as it is: a test of this
//!   file holds that;
//! - `bugs/blind/*.patch` say what they need instead: whoever wrote them knew no check, and any may
//!   find them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{cargo, output, run, target_folder};

/// The profile of the workspace that makes many builds short.
pub(crate) const PROFILE: &str = "planted";

/// A copy of the tree in the target folder, which bugs are planted in.
pub(crate) struct Scratch {
    root: PathBuf,
    folder: PathBuf,
}

impl Scratch {
    /// Names the place of the copy. It is as an earlier run left it.
    pub(crate) fn new(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_path_buf(), folder: target_folder(root)?.join("planted") })
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    /// Makes the copy equal to the tracked files of the tree, writing only what differs so that
    /// builds stay short.
    pub(crate) fn restore(&self) -> Result<()> {
        let git = ["-c", "safe.directory=*", "ls-files", "-z"];
        let listing = output(Command::new("git").args(git).current_dir(&self.root))?;
        for path in listing.split('\0').filter(|path| !path.is_empty()) {
            let (from, to) = (self.root.join(path), self.tree().join(path));
            let contents = fs::read(&from).with_context(|| format!("reading {path}"))?;
            if fs::read(&to).ok().as_ref() != Some(&contents) {
                fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
                fs::write(&to, contents)?;
            }
        }
        Ok(())
    }

    /// Makes the copy equal to the tree with this one patch applied.
    pub(crate) fn plant(&self, patch: &Path) -> Result<()> {
        self.restore()?;
        let mut command = Command::new("git");
        command.arg("apply").arg(patch).current_dir(self.tree());
        // The copy lies inside the repository; without the ceiling git would look for the files
        // there.
        output(command.env("GIT_CEILING_DIRECTORIES", &self.folder)).map(drop)
    }

    /// Builds a program of the copy with a profile of its own workspace and gives its path.
    pub(crate) fn build(&self, package: &str, profile: &str, binary: &str) -> Result<PathBuf> {
        let build = self.target();
        let mut command = cargo(&self.tree());
        command.args(["build", "--quiet", "--profile", profile, "--locked", "--package", package]);
        run(command.env("CARGO_TARGET_DIR", &build))?;
        Ok(build.join(profile).join(binary))
    }
}

/// The patch of a bug that is called by its name.
///
/// # Errors
/// When there is none.
pub(crate) fn patch(among: Vec<PathBuf>, name: &str) -> Result<PathBuf> {
    let names: Vec<_> = among.into_iter().map(|path| (bug_name(&path), path)).collect();
    let known = || names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let found = names.iter().find(|(known, _)| known == name);
    Ok(found.with_context(|| format!("no bug is called {name}; there are {}", known()))?.1.clone())
}

pub(crate) fn bug_name(patch: &Path) -> String {
    patch.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The value of a line `key: value` above the diff.
pub(crate) fn header<'a>(patch: &'a str, key: &str) -> Option<&'a str> {
    let above = patch.lines().take_while(|line| !line.starts_with("diff "));
    above.filter_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim).next()
}

pub(crate) fn patches(root: &Path) -> Result<Vec<PathBuf>> {
    patches_in(&root.join("bugs"))
}

/// The patches that no check is named for.
pub(crate) fn blind_patches(root: &Path) -> Result<Vec<PathBuf>> {
    patches_in(&root.join("bugs/blind"))
}

fn patches_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut patches: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    patches.sort();
    ensure!(!patches.is_empty(), "{} holds no patch: nothing to plant", folder.display());
    Ok(patches)
}

/// Who must find a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// The simulator, by this check.
    Check(String),
    /// The simulator, by any check.
    AnyCheck,
    /// These arguments of `cargo test`, since no simulated cluster does what it needs.
    Test(Vec<String>),
    /// The model checker alone.
    Model,
}

/// One patch.
#[derive(Clone, Debug)]
pub(crate) struct Bug {
    pub(crate) name: String,
    pub(crate) patch: PathBuf,
    pub(crate) judge: Judge,
}

impl Bug {
    /// Reads the header of a patch.
    ///
    /// # Errors
    /// When it names nobody who must find it; a blind one, when it names somebody, or does not say
    /// what it needs.
    pub(crate) fn read(patch: &Path) -> Result<Self> {
        let name = bug_name(patch);
        let text = fs::read_to_string(patch).with_context(|| name.clone())?;
        let of = |key| header(&text, key);
        let is_blind = patch.parent().is_some_and(|folder| folder.ends_with("bugs/blind"));
        let judge = match (of("check"), of("test"), of("model")) {
            (None, None, None) if is_blind && of("needs").is_some() => Judge::AnyCheck,
            _ if is_blind => bail!("{name}: there must be a line 'needs:', and none that judges"),
            (Some(check), None, _) => Judge::Check(check.to_owned()),
            (None, Some(test), None) => {
                Judge::Test(test.split_whitespace().map(str::to_owned).collect())
            }
            (None, None, Some(_)) => Judge::Model,
            _ => bail!("{name}: there must be a line 'check:' or 'test:', or 'model:' alone"),
        };
        Ok(Self { name, patch: patch.to_path_buf(), judge })
    }
}

/// Demands that every patch, the blind ones too, has the header it should have and applies to the
/// tree as it is.
///
/// # Errors
/// All that do not.
pub(crate) fn check_patches(root: &Path) -> Result<usize> {
    let patches = [patches(root)?, blind_patches(root)?].concat();
    let mut wrong = Vec::new();
    for patch in &patches {
        let mut command = Command::new("git");
        command.args(["apply", "--check"]).arg(patch).current_dir(root);
        let applies = output(&mut command).map(drop);
        if let Err(error) = Bug::read(patch).and(applies) {
            wrong.push(format!("{}: {error:#}", bug_name(patch)));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(patches.len())
}

#[cfg(test)]
mod tests {
    use super::{check_patches, header};

    /// Only lines above the diff are the header.
    #[test]
    fn the_header_names_the_check() {
        let patch = "Votes leave early.\ncheck: a-check\n\ndiff --git a b\ncheck: not this";
        assert_eq!(header(patch, "check"), Some("a-check"));
        assert_eq!(header("diff --git a b\ncheck: not this", "check"), None);
    }

    /// Code that moved under a patch is seen at once.
    #[test]
    fn every_patch_applies_and_says_who_must_find_it() {
        check_patches(&crate::workspace_root()).unwrap();
    }
}
