/*-------------------------------------------------------------------------
 *
 * triggers.c
 *		The triggers on our tables: for rows that somebody else than our functions
 * writes.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "hooks/hooks.h"

/* Note a row that none of our functions wrote.  The trigger on _taskshed.alarm. */
PG_FUNCTION_INFO_V1(ts_alarm_changed);
Datum
ts_alarm_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;
	TupleDesc	desc;
	Datum		id;
	Datum		run_at;
	Datum		owner;
	bool		nulls[3];

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function taskshed._alarm_changed() must be called by its trigger")));
	if (ts_shared == NULL)
		PG_RETURN_POINTER(NULL);

	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	desc = RelationGetDescr(trigger->tg_relation);
	if (desc->natts < Natts_alarm)
		PG_RETURN_POINTER(NULL);
	id = heap_getattr(row, Anum_alarm_id, desc, &nulls[0]);
	run_at = heap_getattr(row, Anum_alarm_run_at, desc, &nulls[1]);
	owner = heap_getattr(row, Anum_alarm_owner, desc, &nulls[2]);
	if (!nulls[0] && !nulls[1] && !nulls[2])
	{
		notes_add(DatumGetTimestampTz(run_at), DatumGetInt64(id), DatumGetObjectId(owner));
		max_tasks_note(DatumGetObjectId(owner));
	}
	PG_RETURN_POINTER(NULL);
}

/*
 * Refuse writes by hand to others than superusers.  The trigger on all our
 * tables: nobody else is granted that, but pg_write_all_data may write every
 * table, and a row of ours says as whom something is run.  It fires for each
 * statement.  (A subscription's worker executes none: see ts_guard.)  Our own
 * functions do not fire triggers.  Error: 42501.
 */
PG_FUNCTION_INFO_V1(ts_superusers_only);
Datum
ts_superusers_only(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function taskshed._superusers_only() must be called by its trigger")));
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s",
						RelationGetRelationName(trigger->tg_relation)),
				 errdetail("Only superusers can write the tables of taskshed by hand.")));
	PG_RETURN_POINTER(NULL);
}
