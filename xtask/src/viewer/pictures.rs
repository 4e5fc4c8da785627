//! The pictures of the README: the viewer at a rule that a planted bug breaks, and a live run.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::browser::Browser;
use super::live;
use crate::run::{build_release, need};
use crate::show_bug::show_bug;

/// The bug that is pictured.
const BUG: &str = "majority-of-an-even-number";

/// Size of the window: what is written in it is legible at the width of a README.
const WINDOW: (u32, u32) = (1180, 740);

/// Pixels of a picture for each of the window.
const SCALE: f64 = 1.25;

/// A picture has at most so many bytes.
const SIZE_BYTES_MAX: usize = 200_000;

/// Colours of a picture, at most; how many shades of red, green and blue there are until it has so
/// few. White stays white.
const COLORS_MAX: usize = 256;
const SHADES: [u16; 6] = [255, 51, 31, 17, 15, 5];

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
    let small = of_few_colors(&browser.picture()?)?;
    println!("{}: {} bytes", path.display(), small.len());
    ensure!(small.len() <= SIZE_BYTES_MAX, "larger than the {SIZE_BYTES_MAX} bytes it may have");
    std::fs::write(path, small).with_context(|| format!("writing {}", path.display()))
}

/// The same picture in as few colours as a byte can name.
fn of_few_colors(picture: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = png::Decoder::new(Cursor::new(picture));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut bytes = vec![0; reader.output_buffer_size().context("a small picture")?];
    let info = reader.next_frame(&mut bytes)?;
    let channels = info.color_type.samples();
    ensure!(3 <= channels, "the browser takes pictures in colour");
    for shades in SHADES {
        let mut palette = BTreeMap::new();
        let pixels: Vec<usize> = bytes
            .chunks_exact(channels)
            .map(|pixel| {
                let color = [0, 1, 2].map(|channel| rounded(pixel[channel], shades));
                let next = palette.len();
                *palette.entry(color).or_insert(next)
            })
            .collect();
        if palette.len() <= COLORS_MAX {
            return indexed(info.width, info.height, &palette, &pixels);
        }
    }
    anyhow::bail!("too many colours")
}

fn rounded(value: u8, shades: u16) -> u8 {
    let step = (u16::from(value) * shades + 127) / 255;
    u8::try_from(step * 255 / shades).expect("at most 255, as step is at most shades")
}

fn indexed(
    width: u32,
    height: u32,
    palette: &BTreeMap<[u8; 3], usize>,
    pixels: &[usize],
) -> Result<Vec<u8>> {
    let mut colors = vec![0; 3 * palette.len()];
    for (color, place) in palette {
        colors[3 * place..3 * place + 3].copy_from_slice(color);
    }
    let pixels = pixels.iter().map(|place| u8::try_from(*place)).collect::<Result<Vec<_>, _>>()?;
    let mut written = Vec::new();
    let mut encoder = png::Encoder::new(&mut written, width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(colors);
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::{SHADES, of_few_colors, rounded};

    /// White and black stay what they are, and what a reader sees is what was written.
    #[test]
    fn few_colors_are_near_the_true_ones() {
        for shades in SHADES {
            assert_eq!((rounded(255, shades), rounded(0, shades)), (255, 0));
        }
        let mut written = Vec::new();
        let mut encoder = png::Encoder::new(&mut written, 64, 64);
        encoder.set_color(png::ColorType::Rgb);
        let pixels: Vec<u8> = (0..64 * 64_u32)
            .flat_map(|pixel| [pixel % 256, pixel / 16, 255].map(|value| value.to_le_bytes()[0]))
            .collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        let small = of_few_colors(&written).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(&small));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        let far = pixels.iter().zip(&bytes).map(|(one, other)| one.abs_diff(*other)).max();
        assert!(far.is_some_and(|far| far < 16), "{far:?}");
    }
}
