//! The pictures of the README: the viewer at a rule that a planted bug breaks, and a live run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::browser::Browser;
use super::live;
use crate::run::{build_release, need};
use crate::show_bug::show_bug;

/// The bug that is pictured.
const BUG: &str = "majority-of-an-even-number";

/// Size of the window: what is written in it is legible at the width of a README.
const WINDOW: (u32, u32) = (1100, 720);

/// Pixels of a picture for each of the window.
const SCALE: f64 = 1.25;

/// A picture has at most so many bytes.
const SIZE_BYTES_MAX: u64 = 220_000;

/// Makes `docs/images` anew, with `binary` or a released build.
///
/// # Errors
/// A program that is missing, or what kept the browser from showing what is pictured.
pub fn pictures(root: &Path, binary: Option<PathBuf>) -> Result<()> {
    need("chromium", "chromium")?;
    let binary = binary.map_or_else(|| build_release(root), Ok)?;
    let page = show_bug(root, BUG, false)?;
    let folder = root.join("docs/images");
    std::fs::create_dir_all(&folder).context("making docs/images")?;
    let browser = Browser::start()?;
    browser.open(&page, "#theme=light")?;
    browser.resize(WINDOW.0, WINDOW.1, SCALE)?;
    browser.keys("v")?;
    shoot(&browser, &folder.join("violation.png"))?;
    let served = live::Served::start(&binary)?;
    live::open(&browser, &served)?;
    live::loses_its_leader(&browser)?;
    shoot(&browser, &folder.join("live.png"))
}

fn shoot(browser: &Browser, path: &Path) -> Result<()> {
    browser.screenshot(path)?;
    let size = std::fs::metadata(path)?.len();
    println!("{}: {size} bytes", path.display());
    ensure!(size <= SIZE_BYTES_MAX, "too large for a README: at most {SIZE_BYTES_MAX} bytes");
    Ok(())
}
