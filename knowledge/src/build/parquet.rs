//! Tables as Parquet files.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::fact::Fact;
use crate::graph::{Entity, GraphMention, Relation};
use crate::store::StoreError;

/// How many rows are held as columns at a time.
const ROWS: usize = 8 * 1024;

/// Rows that can be a table.
pub(super) trait Table: Sized {
    /// The columns, in Parquet's own words.
    const SCHEMA: &str;

    /// The values, column by column, in the order of the schema.
    fn columns(rows: &[Self]) -> Vec<Column>;
}

/// The values of a column.
pub(super) enum Column {
    Text(Vec<ByteArray>),
    OptionalText(Vec<Option<ByteArray>>),
    Lists(Vec<Vec<ByteArray>>),
    Double(Vec<f64>),
    Long(Vec<i64>),
    OptionalLong(Vec<Option<i64>>),
}

/// Writes the rows. The same rows give the same bytes.
pub(super) fn write<T: Table>(rows: impl Iterator<Item = T>, to: BufWriter<File>) -> Result<(), StoreError> {
    try_write(rows, to).map_err(|error| StoreError::Scratch(std::io::Error::other(error)))
}

fn try_write<T: Table>(mut rows: impl Iterator<Item = T>, to: BufWriter<File>) -> Result<(), ParquetError> {
    let schema = Arc::new(parse_message_type(T::SCHEMA)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by("knowledge".into())
        .build();
    let mut file = SerializedFileWriter::new(to, schema, Arc::new(properties))?;
    loop {
        let rows: Vec<T> = rows.by_ref().take(ROWS).collect();
        if rows.is_empty() {
            break;
        }
        let mut group = file.next_row_group()?;
        for column in T::columns(&rows) {
            let Some(mut writer) = group.next_column()? else {
                break;
            };
            match column {
                Column::Text(values) => {
                    writer.typed::<ByteArrayType>().write_batch(&values, None, None)?;
                }
                Column::OptionalText(values) => {
                    let levels: Vec<i16> = values.iter().map(|value| value.is_some().into()).collect();
                    let values: Vec<ByteArray> = values.into_iter().flatten().collect();
                    writer
                        .typed::<ByteArrayType>()
                        .write_batch(&values, Some(&levels), None)?;
                }
                Column::Lists(lists) => {
                    let (values, held, begun) = flat(lists);
                    writer
                        .typed::<ByteArrayType>()
                        .write_batch(&values, Some(&held), Some(&begun))?;
                }
                Column::Double(values) => {
                    writer.typed::<DoubleType>().write_batch(&values, None, None)?;
                }
                Column::Long(values) => {
                    writer.typed::<Int64Type>().write_batch(&values, None, None)?;
                }
                Column::OptionalLong(values) => {
                    let levels: Vec<i16> = values.iter().map(|value| value.is_some().into()).collect();
                    let values: Vec<i64> = values.into_iter().flatten().collect();
                    writer
                        .typed::<Int64Type>()
                        .write_batch(&values, Some(&levels), None)?;
                }
            }
            writer.close()?;
        }
        group.close()?;
    }
    file.close()?;
    Ok(())
}

/// Lists as Parquet has them: the values; for each whether there is one (an empty list has one place without); whether it
/// goes on with a list or begins one.
fn flat(lists: Vec<Vec<ByteArray>>) -> (Vec<ByteArray>, Vec<i16>, Vec<i16>) {
    let (mut values, mut held, mut goes_on) = (Vec::new(), Vec::new(), Vec::new());
    for list in lists {
        if list.is_empty() {
            held.push(0);
            goes_on.push(0);
        }
        for (place, value) in list.into_iter().enumerate() {
            values.push(value);
            held.push(1);
            goes_on.push(i16::from(place > 0));
        }
    }
    (values, held, goes_on)
}

fn text<T>(rows: &[T], of: impl Fn(&T) -> &str) -> Column {
    Column::Text(rows.iter().map(|row| ByteArray::from(of(row))).collect())
}

fn name<T>(rows: &[T], of: impl Fn(&T) -> String) -> Column {
    Column::Text(
        rows.iter()
            .map(|row| ByteArray::from(of(row).into_bytes()))
            .collect(),
    )
}

fn optional<T>(rows: &[T], of: impl Fn(&T) -> Option<&str>) -> Column {
    Column::OptionalText(rows.iter().map(|row| of(row).map(ByteArray::from)).collect())
}

fn lists<T>(rows: &[T], of: impl Fn(&T) -> &[String]) -> Column {
    let list = |row| {
        of(row)
            .iter()
            .map(|value| ByteArray::from(value.as_str()))
            .collect()
    };
    Column::Lists(rows.iter().map(list).collect())
}

impl Table for Fact {
    const SCHEMA: &str = "message fact {
        REQUIRED BYTE_ARRAY id (UTF8);
        REQUIRED BYTE_ARRAY text (UTF8);
        REQUIRED BYTE_ARRAY type (UTF8);
        REQUIRED BYTE_ARRAY author (UTF8);
        REQUIRED INT64 time (TIMESTAMP(MICROS, true));
        REQUIRED BYTE_ARRAY sourceMessageId (UTF8);
        REQUIRED BYTE_ARRAY permalink (UTF8);
        REQUIRED group tags (LIST) { REPEATED group list { REQUIRED BYTE_ARRAY element (UTF8); } }
        REQUIRED group entities (LIST) { REPEATED group list { REQUIRED BYTE_ARRAY element (UTF8); } }
        REQUIRED BYTE_ARRAY importance (UTF8);
        REQUIRED DOUBLE quality;
        OPTIONAL BYTE_ARRAY owner (UTF8);
        OPTIONAL BYTE_ARRAY due (UTF8);
        OPTIONAL BYTE_ARRAY answers (UTF8);
        OPTIONAL BYTE_ARRAY supersedes (UTF8);
        OPTIONAL BYTE_ARRAY supersededBy (UTF8);
    }";

    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            text(rows, |fact| &fact.id),
            text(rows, |fact| &fact.text),
            name(rows, |fact| fact.kind.to_string()),
            text(rows, |fact| &fact.author),
            Column::Long(rows.iter().map(|fact| fact.time.as_microsecond()).collect()),
            text(rows, |fact| &fact.source_message_id),
            text(rows, |fact| &fact.permalink),
            lists(rows, |fact| &fact.tags),
            lists(rows, |fact| &fact.entities),
            name(rows, |fact| fact.importance.to_string()),
            Column::Double(rows.iter().map(|fact| fact.quality).collect()),
            optional(rows, |fact| fact.owner.as_deref()),
            optional(rows, |fact| fact.due.as_deref()),
            optional(rows, |fact| fact.answers.as_deref()),
            optional(rows, |fact| fact.supersedes.as_deref()),
            optional(rows, |fact| fact.superseded_by.as_deref()),
        ]
    }
}

impl Table for Entity {
    const SCHEMA: &str = "message entity {
        REQUIRED BYTE_ARRAY name (UTF8);
        REQUIRED BYTE_ARRAY type (UTF8);
        REQUIRED group aliases (LIST) { REPEATED group list { REQUIRED BYTE_ARRAY element (UTF8); } }
        REQUIRED INT64 mentions;
    }";

    fn columns(rows: &[Self]) -> Vec<Column> {
        let long = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        vec![
            text(rows, |entity| &entity.name),
            name(rows, |entity| entity.kind.to_string()),
            lists(rows, |entity| &entity.aliases),
            Column::Long(rows.iter().map(|entity| long(entity.mentions)).collect()),
        ]
    }
}

impl Table for Relation {
    const SCHEMA: &str = "message relation {
        REQUIRED BYTE_ARRAY subject (UTF8);
        REQUIRED BYTE_ARRAY predicate (UTF8);
        REQUIRED BYTE_ARRAY object (UTF8);
        REQUIRED DOUBLE confidence;
        REQUIRED BYTE_ARRAY sourceMessageId (UTF8);
        OPTIONAL INT64 validFrom (TIMESTAMP(MICROS, true));
        OPTIONAL INT64 validUntil (TIMESTAMP(MICROS, true));
    }";

    fn columns(rows: &[Self]) -> Vec<Column> {
        let times = |of: fn(&Self) -> Option<jiff::Timestamp>| {
            Column::OptionalLong(
                rows.iter()
                    .map(|row| of(row).map(jiff::Timestamp::as_microsecond))
                    .collect(),
            )
        };
        vec![
            text(rows, |relation| &relation.subject),
            name(rows, |relation| relation.predicate.to_string()),
            text(rows, |relation| &relation.object),
            Column::Double(rows.iter().map(|relation| relation.confidence).collect()),
            text(rows, |relation| &relation.source_message_id),
            times(|relation| relation.valid_from),
            times(|relation| relation.valid_until),
        ]
    }
}

impl Table for GraphMention {
    const SCHEMA: &str = "message mention {
        REQUIRED BYTE_ARRAY entity (UTF8);
        REQUIRED BYTE_ARRAY sourceMessageId (UTF8);
    }";

    fn columns(rows: &[Self]) -> Vec<Column> {
        vec![
            text(rows, |mention| &mention.entity),
            text(rows, |mention| &mention.source_message_id),
        ]
    }
}
