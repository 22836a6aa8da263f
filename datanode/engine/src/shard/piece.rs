//! A row group of an open segment, as scans hold it.

use std::rc::Rc;

use meridian_proto::schema::TableSchema;

use super::chunk::LiveSegment;
use crate::disk::Disk;
use crate::leaf::{LeafCache, RowGroupScan};
use crate::scan::Bound;
use crate::segment::SegmentReader;
use crate::visibility::View;

pub(super) struct Piece<D: Disk> {
    pub reader: Rc<SegmentReader<D::File>>,
    pub row_group: usize,
    /// Keeps the file from being removed.
    pub segment: Rc<LiveSegment<D::File>>,
}

impl<D: Disk> Piece<D> {
    /// Those of a segment that may have seen rows within the bounds.
    pub fn all(
        reader: &Rc<SegmentReader<D::File>>,
        segment: &Rc<LiveSegment<D::File>>,
        schema: &TableSchema,
        bounds: &[Bound],
        any_of: &[Vec<Bound>],
        view: &View,
    ) -> Vec<Self> {
        let mut row_groups = reader.prune(schema, bounds);
        row_groups.retain(|at| reader.may_hold(*at, schema, any_of));
        if segment.run.is_none() {
            row_groups.retain(|at| reader.row_group(*at).commits.is_none_or(|(min, _)| view.sees(min)));
        }
        let piece = |row_group| Self { reader: Rc::clone(reader), row_group, segment: Rc::clone(segment) };
        row_groups.into_iter().map(piece).collect()
    }

    pub fn scan<'a>(
        &'a self,
        schema: &'a TableSchema,
        bounds: &'a [Bound],
        view: &'a View,
        cache: &'a LeafCache<D::File>,
    ) -> RowGroupScan<'a, D::File> {
        RowGroupScan {
            reader: &self.reader,
            row_group: self.row_group,
            schema,
            bounds,
            view: self.segment.run.is_none().then_some(view),
            cache,
        }
    }
}
