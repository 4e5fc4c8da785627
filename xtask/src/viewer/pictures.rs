//! The pictures of the README: the viewer at a rule that a planted bug breaks, and a live run.

use std::cmp::Reverse;
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

/// Colours of a picture, at most, and how many of them are the most frequent ones.
const COLORS_MAX: usize = 256;
const FREQUENT_MAX: usize = 192;

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

/// The same picture in as few colours as a byte can name: those that are taken stay what they are,
/// and every other becomes the nearest of them.
fn of_few_colors(picture: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = png::Decoder::new(Cursor::new(picture));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut bytes = vec![0; reader.output_buffer_size().context("a small picture")?];
    let info = reader.next_frame(&mut bytes)?;
    let channels = info.color_type.samples();
    ensure!(3 <= channels, "the browser takes pictures in colour");
    let color = |pixel: &[u8]| [pixel[0], pixel[1], pixel[2]];
    let pixels: Vec<[u8; 3]> = bytes.chunks_exact(channels).map(color).collect();
    let mut counts: BTreeMap<[u8; 3], usize> = BTreeMap::new();
    for pixel in &pixels {
        *counts.entry(*pixel).or_default() += 1;
    }
    let palette = palette_of(&counts);
    let places: BTreeMap<[u8; 3], u8> =
        counts.keys().map(|color| (*color, nearest(&palette, *color))).collect();
    let pixels: Vec<u8> = pixels.iter().map(|pixel| places[pixel]).collect();
    indexed(info.width, info.height, &palette, &pixels)
}

/// The most frequent colours, and then, one by one, what is farthest from all that were taken.
fn palette_of(counts: &BTreeMap<[u8; 3], usize>) -> Vec<[u8; 3]> {
    let mut palette: Vec<[u8; 3]> = counts.keys().copied().collect();
    palette.sort_by_key(|color| (Reverse(counts[color]), *color));
    let rest = palette.split_off(palette.len().min(FREQUENT_MAX));
    let to_palette = |color: &[u8; 3]| {
        palette.iter().map(|taken| distance(*color, *taken)).min().unwrap_or(u32::MAX)
    };
    let mut distances: Vec<u32> = rest.iter().map(to_palette).collect();
    while palette.len() < COLORS_MAX {
        let farthest = distances.iter().enumerate().max_by_key(|(_, far)| **far);
        let Some((place, 1..)) = farthest.map(|(place, far)| (place, *far)) else { break };
        palette.push(rest[place]);
        for (far, color) in distances.iter_mut().zip(&rest) {
            *far = distance(*color, rest[place]).min(*far);
        }
    }
    palette
}

fn nearest(palette: &[[u8; 3]], color: [u8; 3]) -> u8 {
    let places = 0..=u8::MAX;
    let best = places.zip(palette).min_by_key(|(_, taken)| distance(color, **taken));
    best.map_or(0, |(place, _)| place)
}

fn distance(one: [u8; 3], other: [u8; 3]) -> u32 {
    one.iter().zip(other).map(|(one, other)| u32::from(one.abs_diff(other)).pow(2)).sum()
}

fn indexed(width: u32, height: u32, palette: &[[u8; 3]], pixels: &[u8]) -> Result<Vec<u8>> {
    let mut written = Vec::new();
    let mut encoder = png::Encoder::new(&mut written, width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette.concat());
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::of_few_colors;

    /// A frequent colour stays what it is, and a rare one becomes one that is near.
    #[test]
    fn few_colors_are_near_the_true_ones() {
        let mut written = Vec::new();
        let mut encoder = png::Encoder::new(&mut written, 64, 64);
        encoder.set_color(png::ColorType::Rgb);
        // The first half is of one colour; the second has a thousand.
        let color = |pixel: u16| if pixel < 2048 { [1, 2, 3] } else { [0, 128, pixel / 2 % 256] };
        let pixels: Vec<u8> = (0..64 * 64)
            .flat_map(|pixel| {
                let [red, green, blue] = color(pixel);
                [red + pixel % 4, green, blue].map(|value| u8::try_from(value).unwrap())
            })
            .collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        let small = of_few_colors(&written).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(&small));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut bytes).unwrap();
        assert_eq!(bytes[..6000], pixels[..6000]);
        let far = pixels.iter().zip(&bytes).map(|(one, other)| one.abs_diff(*other)).max();
        assert!(far.is_some_and(|far| far < 6), "{far:?}");
    }
}
