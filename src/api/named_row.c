/*-------------------------------------------------------------------------
 *
 * named_row.c
 *		Rows of our composite types, filled by the names of their attributes.
 *
 * What a function returns as a row has a type of its own, which an update of the
 * extension can widen with ALTER TYPE, while views and other functions use it.  So
 * attributes are found by name, and those that nobody fills are null.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"

#include "api/api.h"

/* Begin a row of the type that a function returns, all null. */
void
named_row_begin(NamedRow *row, FunctionCallInfo fcinfo)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	named_row_of(row, BlessTupleDesc(desc));
}

/* Begin one of many such rows. */
void
named_row_of(NamedRow *row, TupleDesc desc)
{
	row->desc = desc;
	row->values = palloc0(row->desc->natts * sizeof(Datum));
	row->nulls = palloc(row->desc->natts * sizeof(bool));
	memset(row->nulls, true, row->desc->natts * sizeof(bool));
}

/*
 * Set an attribute, if there is one of that name, and if it still is of the type
 * that the value has.
 */
void
named_row_set(NamedRow *row, const char *name, Oid type, Datum value)
{
	for (int i = 0; i < row->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(row->desc, i);

		if (att->attisdropped || att->atttypid != type || strcmp(NameStr(att->attname), name) != 0)
			continue;
		row->values[i] = value;
		row->nulls[i] = false;
	}
}

/* Return the row as a value. */
Datum
named_row_datum(const NamedRow *row)
{
	return HeapTupleGetDatum(heap_form_tuple(row->desc, row->values, row->nulls));
}
