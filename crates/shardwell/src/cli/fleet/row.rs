//! A printed table, read back by tests: of the text, and of the command as a process.

/// What the row that begins with `name` has in each column of its table, where a column begins with its header.
#[track_caller]
pub(super) fn row(text: &str, name: &str) -> Vec<String> {
    let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
    let is_row = |line: &[char]| line.iter().skip(2).collect::<String>().starts_with(&format!("{name} "));
    let at = lines.iter().position(|line| is_row(line)).unwrap_or_else(|| panic!("no row {name} in\n{text}"));
    let above = lines[..at].iter().rposition(|line| line[0] == '╞').expect("a table") - 1;
    let is_start = |window: &[char]| window[..2] == [' ', ' '] && !matches!(window[2], ' ' | '│');
    let starts = lines[above].windows(3).zip(0..).filter(|(window, _)| is_start(window)).map(|(_, at)| at + 2);
    let mut bounds: Vec<usize> = [2].into_iter().chain(starts).collect();
    bounds.push(lines[at].len() - 1);
    let cell = |range: &[usize]| lines[at][range[0]..range[1]].iter().collect::<String>().trim().to_owned();
    bounds.windows(2).map(cell).collect()
}
