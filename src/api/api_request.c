/*-------------------------------------------------------------------------
 *
 * api_request.c
 *		request_run(): one more run of a task, at the wish of a trigger.
 *
 * Triggers of many transactions ask for runs of the same task, and some stay open for
 * long.  None of them locks the task: each leaves a row of its own, of which the scheduler
 * makes one run of the task when they have committed.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/api.h"

/* A trigger for each row asks for the same few tasks again and again: one row is enough. */
#define ASKED_KEPT	8

static struct
{
	int64		id;
	TransactionId xid;			/* that has asked: a subtransaction, maybe */
}			asked[ASKED_KEPT];

/* Return whether this transaction has asked for that task, and not rolled that back. */
static bool
request_is_there(int64 id)
{
	for (int i = 0; i < ASKED_KEPT; i++)
	{
		if (asked[i].id == id && TransactionIdIsCurrentTransactionId(asked[i].xid))
			return true;
	}
	return false;
}

/*
 * Return why requests would be left lying in this database, so that none is written; or
 * NULL.
 */
static const char *
request_no_use(Store *store)
{
	HomeState	home = copies_state(store, NULL);

	if (home_is_held(home))
		return copies_detail(home);
	if (!ts_enabled)
		return "taskshed is disabled.";
	if (check_is_template())
		return psprintf("Database \"%s\" is a template.", get_database_name(MyDatabaseId));
	return NULL;
}

/* Say so, once a transaction, when a run that was asked for will not come. */
static void
request_tell_no_use(const char *why, Datum task_id)
{
	static TimestampTz told_in = 0;

	if (told_in == GetCurrentTransactionStartTimestamp())
		return;
	told_in = GetCurrentTransactionStartTimestamp();
	ereport(NOTICE,
			(errmsg("no run of task \"%s\" is asked for, because tasks do not run here",
					TextDatumGetCString(task_id)),
			 errdetail_internal("%s", why)));
}

PG_FUNCTION_INFO_V1(ts_request_run);
Datum
ts_request_run(PG_FUNCTION_ARGS)
{
	static int	next = 0;
	Oid			owner;
	Store	   *store;
	TaskRow		task;
	bool		there;

	check_writable("taskshed.request_run()");
	owner = check_owner(PG_ARGISNULL(1) ? NULL : NameStr(*PG_GETARG_NAME(1)));
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);

	store = store_open(AccessShareLock);
	there = store_find_task(store, owner, PointerGetDatum(PG_GETARG_TEXT_PP(0)), &task);
	if (there && !request_is_there(ROW_GET(Int64, &task, task_id)))
	{
		const char *why = request_no_use(store);

		if (why != NULL)
			request_tell_no_use(why, ROW_DATUM(&task, task_task_id));
		else
		{
			notes_add_request(requests_insert(store, ROW_GET(Int64, &task, task_id)));
			asked[next].id = ROW_GET(Int64, &task, task_id);
			asked[next].xid = GetCurrentTransactionId();
			next = (next + 1) % ASKED_KEPT;
		}
	}
	store_close(store, NoLock);
	PG_RETURN_BOOL(there);
}
