//! A chart of what was measured: bars by ratio, one panel for each setting.

use std::fmt::Write as _;

use super::report::{Report, Row};

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 32.0;
const LABELS: f64 = 240.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
const HEAD: f64 = 46.0;
/// Room behind a bar for its number.
const NUMBER: f64 = 150.0;

const STYLE: &str = "\
text { font: 13px ui-sans-serif, system-ui, sans-serif; fill: #1f2933 }
.title { font-size: 22px; font-weight: 650 }
.panel { font-size: 15px; font-weight: 600 }
.faint { fill: #7b8794; font-size: 12px }
.bar { fill: #b8c4ce }
.weir { fill: #2b6cb0 }
.floor { fill: #e4e7eb }
.unit { stroke: #7b8794; stroke-width: 1; stroke-dasharray: 3 3 }
.spread { stroke: #1f2933; stroke-width: 1.2 }
.paper { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e7eb } .faint { fill: #9aa5b1 } .paper { fill: #171d24 }
  .bar { fill: #52606d } .floor { fill: #323f4b } .weir { fill: #63a4e8 } .spread { stroke: #e4e7eb }
}
";

/// The rows that are drawn.
pub(super) fn draw(report: &Report) -> String {
    let panels = panels(report);
    let height = panels.iter().map(|panel| HEAD + STEP * panel.rows.len() as f64).sum::<f64>() + 110.0;
    let mut body = String::new();
    let mut y = 84.0;
    for panel in &panels {
        panel.draw(&mut body, y);
        y += HEAD + STEP * panel.rows.len() as f64;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\n\
         <title>weir: what forwarding costs</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"42\">What forwarding costs</text>\n\
         <text class=\"faint\" x=\"{MARGIN}\" y=\"62\">{}; bars are medians, lines their quartiles, all of one run</text>\n\
         {body}</svg>\n",
        escape(&report.machine.to_string())
    )
}

struct Panel<'a> {
    title: String,
    rows: Vec<&'a Row>,
}

/// Each setting in which something is compared; the settings with most of what the figures are about.
fn panels(report: &Report) -> Vec<Panel<'_>> {
    let mut panels: Vec<Panel<'_>> = Vec::new();
    for row in report.rows.iter().filter(|row| row.ratio.is_some()) {
        let is_drawn = match &*row.bench {
            "prog" => row.setting != "1 flow",
            "e2e" => row.setting.ends_with(", 1,000 services") && !row.setting.starts_with("median"),
            _ => false,
        };
        if !is_drawn {
            continue;
        }
        let title = match &*row.bench {
            "prog" => format!("Nanoseconds a packet, {}", row.setting),
            _ => row.setting.clone(),
        };
        match panels.last_mut().filter(|panel| panel.title == title) {
            Some(panel) => panel.rows.push(row),
            None => panels.push(Panel { title, rows: vec![row] }),
        }
    }
    panels
}

impl Panel<'_> {
    fn draw(&self, out: &mut String, top: f64) {
        let unit = self.rows[0].ratio.as_ref().map_or("", |ratio| &ratio.to);
        let ratios = self.rows.iter().filter_map(|row| Some(row.ratio.as_ref()?.spread.upper));
        let most = ratios.fold(1.0, f64::max);
        let left = MARGIN + LABELS;
        let scale = (WIDTH - left - NUMBER - MARGIN) / most;
        let bottom = top + HEAD + STEP * self.rows.len() as f64 - 18.0;
        let _ = writeln!(
            out,
            "<text class=\"panel\" x=\"{MARGIN}\" y=\"{:.0}\">{}</text>\
             <text class=\"faint\" x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{} = 1</text>",
            top + 20.0,
            escape(&self.title),
            left + scale,
            top + 20.0,
            escape(unit)
        );
        for (number, row) in self.rows.iter().enumerate() {
            self.bar(out, row, left, scale, top + 30.0 + STEP * number as f64);
        }
        let x = left + scale;
        let _ = writeln!(
            out,
            "<line class=\"unit\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{bottom:.0}\"/>",
            top + 26.0
        );
    }

    fn bar(&self, out: &mut String, row: &Row, left: f64, scale: f64, y: f64) {
        let Some(ratio) = &row.ratio else { return };
        let spread = &ratio.spread;
        let is_weir = row.subject.starts_with("weir") || row.subject.contains(": ");
        let class = match (is_weir, row.subject.as_str()) {
            (true, _) => "weir",
            (false, "one veth pair" | "parse only") => "floor",
            _ => "bar",
        };
        let middle = y + BAR / 2.0;
        let value = row.value.median;
        let number = if value < 1000.0 { format!("{value:.0}") } else { thousands(value) };
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{left}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\
             <line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.2}<tspan class=\"faint\">  {number} {}</tspan></text>",
            left - 10.0,
            middle + 4.5,
            escape(&row.subject),
            (spread.median * scale).max(1.0),
            left + spread.lower * scale,
            left + spread.upper * scale,
            left + spread.upper.max(spread.median) * scale + 8.0,
            middle + 4.5,
            spread.median,
            escape(&row.unit)
        );
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(
            [thousands(1234.0), thousands(123_456.0), thousands(1e6)],
            ["1,234", "123,456", "1,000,000"]
        );
    }
}
