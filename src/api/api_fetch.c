/*-------------------------------------------------------------------------
 *
 * api_fetch.c
 *		fetch_task and fetch_tasks: rows of the view tasks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "api/api.h"

typedef enum FetchQuery
{
	FETCH_BY_ID,
	FETCH_BY_IDS,
	FETCH_BY_GROUP,
	FETCH_ALL_OWNED,
	FETCH_NQUERIES
} FetchQuery;

static const char *const fetch_conditions[FETCH_NQUERIES] = {
	[FETCH_BY_ID] = " WHERE task_id OPERATOR(pg_catalog.=) $2",
	[FETCH_BY_IDS] = " WHERE task_id OPERATOR(pg_catalog.=) ANY ($2)",
	[FETCH_BY_GROUP] = " WHERE group_id OPERATOR(pg_catalog.=) $2",
	[FETCH_ALL_OWNED] = ""
};

/*
 * Prepare one of the queries.  What it returns are the columns of the view tasks,
 * by name: task_details has them too, and the OID of the owner.  That view is in a
 * schema that the caller cannot name anything in, so a function of SQL is between:
 * the planner puts what it selects in its place.
 */
static SPIPlanPtr
fetch_prepare(FetchQuery which, TupleDesc tasks)
{
	Oid			types[2] = {OIDOID, which == FETCH_BY_IDS ? TEXTARRAYOID : TEXTOID};
	StringInfoData query;
	SPIPlanPtr	plan;

	initStringInfo(&query);
	for (int i = 0; i < tasks->natts; i++)
		appendStringInfo(&query, "%s %s", i == 0 ? "SELECT" : ",",
						 quote_identifier(NameStr(TupleDescAttr(tasks, i)->attname)));
	appendStringInfo(&query, " FROM taskshed._details($1)%s "
					 "ORDER BY run_at, task_id COLLATE pg_catalog.\"C\"",
					 fetch_conditions[which]);
	plan = SPI_prepare(query.data, which == FETCH_ALL_OWNED ? 1 : 2, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare a query: %s", SPI_result_code_string(SPI_result));
	pfree(query.data);
	return plan;
}

/*
 * Run one of the queries as the caller, who sees what the view lets it see.
 * The result is in SPI_tuptable; the caller is connected to SPI.  The type is
 * that of the rows of tasks.
 */
static void
fetch_execute(FetchQuery which, Oid type, Oid owner, Datum selector)
{
	static SPIPlanPtr plans[FETCH_NQUERIES];
	static uint64 versions[FETCH_NQUERIES];
	Datum		values[2] = {ObjectIdGetDatum(owner), selector};
	TupleDesc	tasks = lookup_rowtype_tupdesc(type, -1);
	uint64		version = assign_record_type_identifier(type, -1);

	/* another version of the extension may have the view with other columns */
	if (plans[which] != NULL && versions[which] != version)
	{
		SPI_freeplan(plans[which]);
		plans[which] = NULL;
	}
	if (plans[which] == NULL)
		plans[which] = fetch_prepare(which, tasks);
	versions[which] = version;
	ReleaseTupleDesc(tasks);

	/* not read-only: see what this statement has done before */
	CommandCounterIncrement();
	if (SPI_execute_plan(plans[which], values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute a query: %s", SPI_result_code_string(SPI_result));
}

/* Return the type of the rows that a function returns: that of the view tasks. */
static Oid
fetch_type(FunctionCallInfo fcinfo)
{
	Oid			type;

	if (get_call_result_type(fcinfo, &type, NULL) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return type;
}

PG_FUNCTION_INFO_V1(ts_fetch_tasks);
Datum
ts_fetch_tasks(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			type;
	Oid			owner;

	ts_require_preload();
	store_require_version();
	if (!PG_ARGISNULL(0) || !PG_ARGISNULL(1))
		check_selector(PG_ARGISNULL(0), PG_ARGISNULL(1), NULL);
	owner = check_owner(PG_ARGISNULL(2) ? NULL : NameStr(*PG_GETARG_NAME(2)));

	type = fetch_type(fcinfo);
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	if (!PG_ARGISNULL(0))
		fetch_execute(FETCH_BY_IDS, type, owner, PG_GETARG_DATUM(0));
	else if (!PG_ARGISNULL(1))
		fetch_execute(FETCH_BY_GROUP, type, owner, PG_GETARG_DATUM(1));
	else
		fetch_execute(FETCH_ALL_OWNED, type, owner, (Datum) 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(ts_fetch_task);
Datum
ts_fetch_task(PG_FUNCTION_ARGS)
{
	Oid			owner;
	Oid			type;
	Datum		result = (Datum) 0;
	bool		found;

	ts_require_preload();
	store_require_version();
	owner = check_owner(PG_ARGISNULL(1) ? NULL : NameStr(*PG_GETARG_NAME(1)));
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();

	type = fetch_type(fcinfo);
	SPI_connect();
	fetch_execute(FETCH_BY_ID, type, owner, PG_GETARG_DATUM(0));
	found = SPI_processed > 0;
	if (found)
	{
		TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);

		result = PointerGetDatum(SPI_returntuple(SPI_tuptable->vals[0], desc));
		ReleaseTupleDesc(desc);
	}
	SPI_finish();
	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}
