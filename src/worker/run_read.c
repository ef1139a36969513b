/*-------------------------------------------------------------------------
 *
 * run_read.c
 *		Reading the task that is to be run.
 *
 * What the scheduler has handed out is a hint: the rows decide whether the task runs
 * now, as this role, and with what.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

/*
 * Return whether this process still is what the role can be.  If anything about
 * roles has changed since that was last asked, it may not be allowed to connect any
 * more, or be more or less than it was: then the process is to leave.
 */
static bool
run_read_role_fits(void)
{
	static uint64 checked = 0;
	uint64		generation = roles_generation();
	bool		is_superuser;

	if (checked == generation)
		return true;
	if (roles_check(GetSessionUserId(), &is_superuser) != ROLE_OK ||
		is_superuser != ts_my_worker->is_superuser)
	{
		slot_retire();
		return false;
	}
	checked = generation;
	return true;
}

/*
 * Fetch the values of a row that are stored out of line, into the current memory
 * context.  A procedure commits, and then they may be gone before its run ends.
 */
static void
run_read_whole(TaskRow *task, TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		if (!task->nulls[i] && TupleDescAttr(desc, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(task->values[i])))
			task->values[i] = PointerGetDatum(detoast_external_attr((struct varlena *)
																	DatumGetPointer(task->values[i])));
	}
}

/*
 * Read the task's rows, and announce the run, unless it is to share a transaction and is
 * not taken yet.  Return false if it is not to run now, with the report filled in.
 */
bool
run_read(Run *run)
{
	Store	   *store = run->store != NULL ? run->store : store_try_open(AccessShareLock);
	AlarmRow	alarm;
	RowTids		tids;
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext old;
	bool		there;

	run->report->id = run->id;
	run->report->fate = TS_FATE_GONE;
	if (store == NULL)
	{
		/* the extension has been dropped: the scheduler will see that too */
		run->report->fate = TS_FATE_LOOK;
		return false;
	}
	if (!run_read_role_fits())
	{
		run->report->fate = TS_FATE_LOOK;
		if (run->store == NULL)
			store_close(store, AccessShareLock);
		return false;
	}

	/* find the rows */
	there = store_get_alarm_at(store, run->id, &run->alarm_tid, &alarm);
	if (there)
	{
		old = MemoryContextSwitchTo(run->context);
		there = store_get_task_of(store, &alarm, &run->task);
		if (there)
			run_read_whole(&run->task, RelationGetDescr(store->task));
		MemoryContextSwitchTo(old);
	}

	/*
	 * in between, somebody may have given it to another role, both rows at
	 * once
	 */
	if (there && ROW_GET(ObjectId, &run->task, task_owner) != ROW_GET(ObjectId, &alarm, alarm_owner))
		there = store_get_alarm(store, run->id, &alarm);
	if (there)
		store_remember(store, &run->task, &alarm, &tids);
	if (there && run->shared)
		store_rely_on(&tids);
	if (run->store == NULL)
		store_close(store, AccessShareLock);

	/* is it to run now, and by us? */
	if (!there || !alarm_is_queued(&alarm))
		return false;
	if (ROW_GET(TimestampTz, &alarm, alarm_run_at) > now ||
		ROW_GET(ObjectId, &alarm, alarm_owner) != GetSessionUserId())
	{
		run->report->fate = TS_FATE_LOOK;
		return false;
	}

	/* remember what its end is compared with */
	old = MemoryContextSwitchTo(run->context);
	run_start_read(&run->start, &run->task, &alarm, now);
	run->start.tids = tids;
	if (run->begun_for == run->start.scheduled_at && run->begun_revision == run->start.revision)
		run->start.late_from = DT_NOEND;
	run->missed = catch_up_is_missed(&run->start);
	if (run->shared && (run->missed || !run_start_may_share(&run->start)))
	{
		run->put_off = true;
		MemoryContextSwitchTo(old);
		return false;
	}
	run->started = true;
	run->callback = run->start.callback;

	/* from here on the run is lost if this process is */
	if (!run->missed && !run->shared)
	{
		run->begun_for = run->start.scheduled_at;
		run->begun_revision = run->start.revision;
		run_announce(run, false);
	}

	/* what is to be called */
	if (ROW_GET(ObjectId, &run->task, task_owner) != GetSessionUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the rows of the task have different owners"),
				 errdetail("They can only have been written by hand.")));
	if (ROW_GET(Bool, &run->task, task_is_alias))
		run->callback = alias_require(run->start.owner, run->start.callback);
	run->kwargs = DatumGetJsonbP(ROW_DATUM(&run->task, task_kwargs));
	on_failure_prepare(run->start.task_id, run->start.owner, &run->callback, &run->kwargs);
	MemoryContextSwitchTo(old);
	return true;
}
