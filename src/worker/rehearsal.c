/*-------------------------------------------------------------------------
 *
 * rehearsal.c
 *		Going through the motions of a worker's first run.
 *
 * A worker that is started ahead of time knows for which task.  What its
 * first run would find slow, because the process is new, is done while there
 * is time: the caches of our tables and of the callback's catalog entries are
 * filled, and the library of the callback's language is loaded.  That is most
 * of what a first run takes longer than the second.
 *
 * No code of users runs and nothing is written, so this can be done for a
 * task that will not run after all.  It keeps nobody waiting either, and
 * waits for nobody.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#include "worker/worker.h"

/* A lock that somebody else has is not waited for any longer (ms). */
#define REHEARSAL_LOCK_TIMEOUT	1

/*
 * Load the library of a function's language.  Not that of a function in C:
 * loading it runs code of its own.
 */
static void
rehearsal_load_language(Oid funcid)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Oid			language;
	Oid			handler;
	FmgrInfo	unused;

	if (!HeapTupleIsValid(tuple))
		return;
	language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
	ReleaseSysCache(tuple);

	tuple = SearchSysCache1(LANGOID, ObjectIdGetDatum(language));
	if (!HeapTupleIsValid(tuple))
		return;
	handler = ((Form_pg_language) GETSTRUCT(tuple))->lanplcallfoid;
	ReleaseSysCache(tuple);

	if (OidIsValid(handler))
		fmgr_info(handler, &unused);
}

/* Read a task's rows and prepare its call. */
static void
rehearsal_go_through(int64 id)
{
	Store	   *store = store_try_open(AccessShareLock);
	AlarmRow	alarm;
	TaskRow		task;
	char	   *name;
	Jsonb	   *kwargs;
	Callback   *callback;
	bool		there;

	if (store == NULL)
		return;
	there = store_get_alarm(store, id, &alarm) && store_get_task(store, id, &task);
	store_close(store, AccessShareLock);
	if (!there || ROW_GET(ObjectId, &task, task_owner) != GetSessionUserId())
		return;

	name = TextDatumGetCString(ROW_DATUM(&task, task_callback));
	if (ROW_GET(Bool, &task, task_is_alias))
		name = alias_require(GetSessionUserId(), name);
	kwargs = DatumGetJsonbPCopy(ROW_DATUM(&task, task_kwargs));
	on_failure_prepare(TextDatumGetCString(ROW_DATUM(&task, task_task_id)), GetSessionUserId(),
					   &name, &kwargs);
	callback = callback_prepare(name, kwargs);
	rehearsal_load_language(callback->funcid);
}

/*
 * Do for a task whatever can be done before its time.  An error is the
 * run's to report, if it is still one then; here it only ends the rehearsal.
 * The worker has no run in progress; the caller resets the current memory
 * context.
 */
void
rehearse(int64 id)
{
	MemoryContext context = CurrentMemoryContext;
	int			lock_timeout = LockTimeout;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		XactReadOnly = true;
		XactDeferrable = false;
		LockTimeout = REHEARSAL_LOCK_TIMEOUT;
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(context);
		rehearsal_go_through(id);
		PopActiveSnapshot();
		CommitTransactionCommand();
		elog(DEBUG1, "rehearsed a run");
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
		elog(DEBUG1, "could not rehearse a run: %s", error->message);
	}
	PG_END_TRY();
	LockTimeout = lock_timeout;
	MemoryContextSwitchTo(context);
	callback_prune();
}
