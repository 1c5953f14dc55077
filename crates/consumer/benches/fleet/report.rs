//! Figures as a table: least, middle and most of many runs, beside what is promised and what the KCL does.

use std::time::Duration;

/// Prints the title of a group of figures, and what its columns are.
pub(crate) fn title(text: &str) {
    println!("\n{text}");
    println!("  {:<64} {:>9} {:>9} {:>9}   {:<18} KCL", "", "min", "median", "max", "promised");
}

/// Prints a figure.
pub(crate) fn row(what: &str, values: &[f64], digits: usize, promised: &str, kcl: &str) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let line = match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(min), Some(median), Some(max)) => {
            format!("  {what:<64} {min:>9.digits$} {median:>9.digits$} {max:>9.digits$}   {promised:<18} {kcl}")
        }
        _ => format!("  {what:<64} nothing was measured"),
    };
    println!("{}", line.trim_end());
}

/// Prints times, in seconds.
pub(crate) fn seconds(what: &str, times: impl IntoIterator<Item = Duration>, promised: &str, kcl: &str) {
    let values: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64()).collect();
    row(&format!("{what}, s"), &values, 2, promised, kcl);
}

/// Prints whole numbers.
pub(crate) fn count(what: &str, counts: impl IntoIterator<Item = u64>, promised: &str, kcl: &str) {
    let values: Vec<f64> = counts.into_iter().map(|count| count as f64).collect();
    row(what, &values, 0, promised, kcl);
}
