/*-------------------------------------------------------------------------
 *
 * compat.h
 *		What differs between PostgreSQL 15 to 19.
 *
 * Each difference is an inline function (pg_noreturn: a macro) with the
 * meaning of the newest release; no other file looks at PG_VERSION_NUM.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_COMPAT_H
#define TASKSHED_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "postmaster/bgworker.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"	/* get_database_name, from 19 on */
#include "utils/snapmgr.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 160000
#include "utils/guc_hooks.h"
#else
#include "replication/syncrep.h"	/* assign_synchronous_commit */
#endif

#if PG_VERSION_NUM < 150000
#error "taskshed needs PostgreSQL 15 or later"
#elif PG_VERSION_NUM >= 200000
#error "this taskshed is for PostgreSQL 15 to 19; look for a later one"
#endif

/* Later minor releases of 15 know databases that were dropped halfway. */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB (-2)
#endif

/* 18 puts this before a declaration; before, it could also stand behind. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* Begins an index scan; 18 added a place for EXPLAIN's counters, 19 flags. */
static inline IndexScanDesc
compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot,
					   int nkeys)
{
#if PG_VERSION_NUM >= 190000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0, 0);
#elif PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/* Begins a scan of all tuples that a snapshot sees; 19 added flags. */
static inline TableScanDesc
compat_table_beginscan(Relation rel, Snapshot snapshot)
{
#if PG_VERSION_NUM >= 190000
	return table_beginscan(rel, snapshot, 0, NULL, SO_NONE);
#else
	return table_beginscan(rel, snapshot, 0, NULL);
#endif
}

/*
 * Deletes a tuple unless somebody has changed it, or is about to; whether it
 * did.  19 put flags in front of the snapshot.
 */
static inline bool
compat_try_delete_tuple(Relation rel, ItemPointer tid)
{
	CommandId	command = GetCurrentCommandId(true);
	TM_FailureData unused;

#if PG_VERSION_NUM >= 190000
	return table_tuple_delete(rel, tid, command, 0, SnapshotAny, InvalidSnapshot,
							  false, &unused) == TM_Ok;
#else
	return table_tuple_delete(rel, tid, command, SnapshotAny, InvalidSnapshot,
							  false, &unused, false) == TM_Ok;
#endif
}

/*
 * Inserts the index entries of a new tuple; 16 added summarizing indexes, and
 * 19 made flags of it all.  With spec_conflict the insertion is speculative.
 */
static inline void
compat_insert_index_tuples(ResultRelInfo *rri, TupleTableSlot *slot,
						   EState *estate, bool *spec_conflict, List *arbiters)
{
	bool		speculative = (spec_conflict != NULL);

#if PG_VERSION_NUM >= 190000
	ExecInsertIndexTuples(rri, estate, speculative ? EIIT_NO_DUPE_ERROR : 0, slot,
						  arbiters, spec_conflict);
#elif PG_VERSION_NUM >= 160000
	ExecInsertIndexTuples(rri, slot, estate, false, speculative,
						  spec_conflict, arbiters, false);
#else
	ExecInsertIndexTuples(rri, slot, estate, false, speculative,
						  spec_conflict, arbiters);
#endif
}

/*
 * Is the tuple in slot free of conflicts in the arbiter indexes?  Waits for
 * transactions that are at work on one.  18 added the tuple itself, for updates.
 */
static inline bool
compat_check_index_constraints(ResultRelInfo *rri, TupleTableSlot *slot,
							   EState *estate, List *arbiters)
{
	ItemPointerData conflict;
#if PG_VERSION_NUM >= 180000
	ItemPointerData none;

	ItemPointerSetInvalid(&none);
	return ExecCheckIndexConstraints(rri, slot, estate, &conflict, &none, arbiters);
#else

	return ExecCheckIndexConstraints(rri, slot, estate, &conflict, arbiters);
#endif
}

/*
 * Updates a tuple that the caller has locked, and its index entries unless
 * the update was HOT.
 */
static inline void
compat_update_tuple(ResultRelInfo *rri, ItemPointer tid, TupleTableSlot *slot,
					EState *estate)
{
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes update_indexes;

	simple_table_tuple_update(rri->ri_RelationDesc, tid, slot, SnapshotAny,
							  &update_indexes);
	if (update_indexes == TU_None)
		return;
#if PG_VERSION_NUM >= 190000
	ExecInsertIndexTuples(rri, estate, EIIT_IS_UPDATE |
						  (update_indexes == TU_Summarizing ? EIIT_ONLY_SUMMARIZING : 0),
						  slot, NIL, NULL);
#else
	ExecInsertIndexTuples(rri, slot, estate, true, false, NULL, NIL,
						  update_indexes == TU_Summarizing);
#endif
#else
	bool		update_indexes;

	simple_table_tuple_update(rri->ri_RelationDesc, tid, slot, SnapshotAny,
							  &update_indexes);
	if (update_indexes)
		ExecInsertIndexTuples(rri, slot, estate, true, false, NULL, NIL);
#endif
}

/* Runs a portal to its end; 18 dropped run_once. */
static inline bool
compat_portal_run(Portal portal, DestReceiver *dest, QueryCompletion *qc)
{
#if PG_VERSION_NUM >= 180000
	return PortalRun(portal, FETCH_ALL, true, dest, dest, qc);
#else
	return PortalRun(portal, FETCH_ALL, true, true, dest, dest, qc);
#endif
}

/* What a planner_hook is given and passes on; 19 has it know of EXPLAIN. */
#if PG_VERSION_NUM >= 190000
#define COMPAT_PLANNER_PARAMETERS \
	Query *query, const char *source, int options, ParamListInfo params, ExplainState *explain
#define COMPAT_PLANNER_ARGUMENTS query, source, options, params, explain
#else
#define COMPAT_PLANNER_PARAMETERS \
	Query *query, const char *source, int options, ParamListInfo params
#define COMPAT_PLANNER_ARGUMENTS query, source, options, params
#endif

/*
 * The functions and procedures of a name, none if there is no such schema; 19
 * also tells why there are none.
 */
static inline FuncCandidateList
compat_function_candidates(List *names, int nargs, List *argnames, bool expand_defaults)
{
#if PG_VERSION_NUM >= 190000
	int			why;

	return FuncnameGetCandidates(names, nargs, argnames, false, expand_defaults, false, true,
								 &why);
#else
	return FuncnameGetCandidates(names, nargs, argnames, false, expand_defaults, false, true);
#endif
}

/* May role execute the function? */
static inline bool
compat_may_execute(Oid funcid, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, funcid, role,
						   ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(funcid, role, ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

/* May role look into the schema? */
static inline bool
compat_may_use_schema(Oid schema, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, role,
						   ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(schema, role, ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* May role connect to the database? */
static inline bool
compat_may_connect(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(DatabaseRelationId, database, role,
						   ACL_CONNECT) == ACLCHECK_OK;
#else
	return pg_database_aclcheck(database, role, ACL_CONNECT) == ACLCHECK_OK;
#endif
}

/* Is it the owner's right, or a superuser's?  16 has one function for all kinds of objects. */
static inline bool
compat_owns_database(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

/* May member SET ROLE to role? */
static inline bool
compat_may_set_role(Oid member, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return member_can_set_role(member, role);
#else
	return is_member_of_role(member, role);
#endif
}

/* Can VACUUM clear away what a registered snapshot still sees?  17 ended that. */
static inline bool
compat_snapshots_expire(void)
{
#if PG_VERSION_NUM >= 170000
	return false;
#else
	return OldSnapshotThresholdActive();
#endif
}

/* Can a background worker connect as a role that is NOLOGIN? */
static inline bool
compat_connects_nologin(void)
{
#if PG_VERSION_NUM >= 170000
	return true;
#else
	return false;
#endif
}

/* Connects a background worker as role, NOLOGIN or not where that can be. */
static inline void
compat_connect_as(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 170000
	BackgroundWorkerInitializeConnectionByOid(database, role,
											  BGWORKER_BYPASS_ROLELOGINCHECK);
#else
	BackgroundWorkerInitializeConnectionByOid(database, role, 0);
#endif
}

/* A wait event of our own, where extensions can have them. */
static inline uint32
compat_wait_event(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * Return whether this process holds locks of a method in the main lock table, which
 * advisory locks are always in.  Others may move locks of ours there, but of tables
 * only: a list that is empty has none of those that are asked for.
 */
static inline bool
compat_holds_locks(LOCKMETHODID method)
{
	bool		found = false;

	for (int i = 0; !found && i < NUM_LOCK_PARTITIONS; i++)
	{
#if PG_VERSION_NUM >= 160000
		dlist_head *list = &MyProc->myProcLocks[i];
		dlist_iter	iter;

		if (dlist_is_empty(list))
			continue;
		LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
		dlist_foreach(iter, list)
			found = found ||
			LOCK_LOCKMETHOD(*dlist_container(PROCLOCK, procLink, iter.cur)->tag.myLock) == method;
		LWLockRelease(LockHashPartitionLockByIndex(i));
#else
		SHM_QUEUE  *list = &MyProc->myProcLocks[i];
		SHM_QUEUE  *link = list;
		PROCLOCK   *held;

		if (SHMQueueEmpty(list))
			continue;
		LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
		while ((held = (PROCLOCK *) SHMQueueNext(list, link, offsetof(PROCLOCK, procLink))) != NULL)
		{
			found = found || LOCK_LOCKMETHOD(*held->tag.myLock) == method;
			link = &held->procLink;
		}
		LWLockRelease(LockHashPartitionLockByIndex(i));
#endif
	}
	return found;
}

#endif							/* TASKSHED_COMPAT_H */
