/*-------------------------------------------------------------------------
 *
 * table_shape.c
 *		Whether a table or index is as our script has made it.
 *
 * Our tables are read and written directly, and what is found in them is taken
 * for what it was when they were made.  With other columns, or nulls where
 * there were none, a table that a superuser has altered would bring the
 * process down; with two columns swapped, one would be taken for the other.  So
 * it is looked at once, and again whenever it may have changed.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "utils/syscache.h"

#include "tables/tables.h"

/* Return whether that is a table of ours: a heap with these columns, by name and in this order. */
bool
table_shape_fits(Oid relid, int natts, const ColumnShape *columns)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		fits = false;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class rel = (Form_pg_class) GETSTRUCT(tuple);

		fits = (rel->relkind == RELKIND_RELATION && rel->relam == HEAP_TABLE_AM_OID &&
				rel->relnatts == natts);
		ReleaseSysCache(tuple);
	}
	for (int i = 0; fits && i < natts; i++)
	{
		tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(i + 1));
		fits = HeapTupleIsValid(tuple);
		if (fits)
		{
			Form_pg_attribute att = (Form_pg_attribute) GETSTRUCT(tuple);

			fits = (strcmp(NameStr(att->attname), columns[i].name) == 0 &&
					att->atttypid == columns[i].type && att->attgenerated == '\0' &&
					(att->attnotnull || columns[i].nulls == COLUMN_nullable));
			ReleaseSysCache(tuple);
		}
	}
	return fits;
}

static bool
table_shape_is_btree(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		is_btree;

	if (!HeapTupleIsValid(tuple))
		return false;
	is_btree = ((Form_pg_class) GETSTRUCT(tuple))->relam == BTREE_AM_OID;
	ReleaseSysCache(tuple);
	return is_btree;
}

/* Return whether that is an index of the table, with these keys. */
bool
table_shape_index_fits(Oid relid, Oid table, const IndexShape *shape)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(relid));
	Form_pg_index index;
	bool		fits;

	if (!HeapTupleIsValid(tuple))
		return false;
	index = (Form_pg_index) GETSTRUCT(tuple);
	fits = (index->indrelid == table && index->indisvalid && table_shape_is_btree(relid) &&
			(!shape->unique || (index->indisunique && index->indimmediate)) &&
			index->indnatts == shape->nkeys);
	for (int i = 0; fits && i < shape->nkeys; i++)
		fits = (index->indkey.values[i] == shape->keys[i]);
	ReleaseSysCache(tuple);
	return fits;
}
