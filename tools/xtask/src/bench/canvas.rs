//! A drawing area of the plots, as SVG.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Points of the plane, from the upper left corner.
pub(super) type Point = (i32, i32);

/// Where a text stands beside its point.
#[derive(Clone, Copy)]
pub(super) enum Align {
    Left,
    Middle,
    Right,
}

/// A drawing area.
pub(super) struct Canvas<'a>(DrawingArea<SVGBackend<'a>, Shift>);

impl<'a> Canvas<'a> {
    pub(super) fn new(into: &'a mut String, (width, height): Point) -> Result<Self> {
        let size = [width, height].map(i32::unsigned_abs);
        let area = SVGBackend::with_string(into, size.into()).into_drawing_area();
        area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
        Ok(Self(area))
    }

    pub(super) fn text(
        &self,
        text: &str,
        at: Point,
        size: u32,
        color: RGBColor,
        align: Align,
    ) -> Result<()> {
        let across = match align {
            Align::Left => HPos::Left,
            Align::Middle => HPos::Center,
            Align::Right => HPos::Right,
        };
        let style = ("sans-serif", size)
            .into_font()
            .color(&color)
            .pos(Pos::new(across, VPos::Center));
        let text = Text::new(text.to_owned(), at, style);
        self.0.draw(&text).map_err(|error| anyhow!("{error}"))
    }

    pub(super) fn bar(&self, from: Point, to: Point, color: RGBAColor) -> Result<()> {
        let bar = Rectangle::new([from, to], color.filled());
        self.0.draw(&bar).map_err(|error| anyhow!("{error}"))
    }

    pub(super) fn line(&self, points: Vec<Point>, color: RGBColor, width: u32) -> Result<()> {
        let line = PathElement::new(points, color.stroke_width(width));
        self.0.draw(&line).map_err(|error| anyhow!("{error}"))
    }

    pub(super) fn dot(&self, at: Point, color: RGBColor) -> Result<()> {
        let dot = Circle::new(at, 4, color.filled());
        self.0.draw(&dot).map_err(|error| anyhow!("{error}"))
    }

    pub(super) fn end(self) -> Result<()> {
        self.0.present().map_err(|error| anyhow!("{error}"))
    }
}
