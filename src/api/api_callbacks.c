/*-------------------------------------------------------------------------
 *
 * api_callbacks.c
 *		The functions about callbacks: add_callback, remove_callback, execute.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/api.h"

PG_FUNCTION_INFO_V1(ts_add_callback);
Datum
ts_add_callback(PG_FUNCTION_ARGS)
{
	bool		replace_existing = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	char	   *target;
	Store	   *store;

	check_writable("taskshed.add_callback()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "name" : "callback"),
				 errhint("Give a name and the function that it stands for, as in taskshed.add_callback('cleanup', 'app.purge').")));
	check_length("name", PG_GETARG_TEXT_PP(0), 1, MAX_ID_LENGTH);
	target = resolve_target(text_to_cstring(PG_GETARG_TEXT_PP(1)));

	store = store_open(RowExclusiveLock);
	copies_claim(store);
	store_close(store, NoLock);
	alias_set(GetUserId(), text_to_cstring(PG_GETARG_TEXT_PP(0)), target, replace_existing);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(ts_remove_callback);
Datum
ts_remove_callback(PG_FUNCTION_ARGS)
{
	check_writable("taskshed.remove_callback()");
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(alias_remove(GetUserId(), text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

/* taskshed.execute is there to be scheduled; a run executes its command. */
PG_FUNCTION_INFO_V1(ts_execute);
Datum
ts_execute(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("taskshed.execute can only be scheduled"),
			 errhint("Use it as the callback of taskshed.add_task, or execute the command itself.")));
}
